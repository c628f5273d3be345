"""``python -m mmdet_longtail``, which is the command ``longtail``."""

from mmdet_longtail.cli.main import main

if __name__ == '__main__':
    main()
