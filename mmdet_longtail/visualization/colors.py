"""Colours that mean the same in all pictures."""

GROUP_COLORS = {
    'rare': '#d1495b',
    'common': '#edae49',
    'frequent': '#30638e',
}
