"""State of a loss that follows from the rows of all iterations so far.

K sums over the rows, S entries of each.
"""

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from mmdet_longtail.errors import check


class OnlineState(nn.Module):
    """Mixin of losses with online state.

    The state is persistent buffers (S,). The loss gives its sums over the
    rows of this rank to :meth:`observe`, in training only, which updates the
    buffers at once, or between iterations. With several ranks,
    `OnlineStateHook` computes the buffers again after the iteration, from the
    sums over all ranks: they are equal on all ranks, and a rank without RoIs
    adds zeros.

    The buffers have double precision. A sum in single precision stays the
    same as soon as it is 2^24 times what an iteration adds.

    Examples:
        >>> class RowCount(OnlineState):
        ...     def advance(self, state, rows):
        ...         return dict(count=state['count'] + rows)
        >>> rows = RowCount()
        >>> rows.add_online_state(num_sums=1, size=2, count=0.0)
        >>> rows.observe(torch.tensor([3.0, 1.0]))
        >>> rows.count
        tensor([3., 1.], dtype=torch.float64)
    """

    increments: Tensor
    is_reduced = False  # whether OnlineStateHook reduces over ranks
    # Whether the state is constant in all calls of an iteration. The hook ends
    # an iteration; without the hook each call is one.
    updates_between_iterations = False

    def add_online_state(
        self, num_sums: int, size: int, **initial: float
    ) -> None:
        """Register the buffers (S,) by their initial values.

        Args:
            num_sums (int): Number of sums that :meth:`observe` takes, K.
            size (int): Number of entries of each sum and buffer, S.
            **initial (float): Initial value of each buffer.
        """
        for name, value in initial.items():
            state = torch.full((size,), value, dtype=torch.float64)
            self.register_buffer(name, state)
        self._online = tuple(initial)
        zeros = torch.zeros(num_sums, size, dtype=torch.float64)
        self.register_buffer('increments', zeros, persistent=False)

    def advance(
        self, state: dict[str, Tensor], *sums: Tensor
    ) -> dict[str, Tensor]:
        """Compute the state after the rows of which these are the sums."""
        raise NotImplementedError

    @torch.no_grad()
    def observe(self, *sums: Tensor) -> None:
        """Update the state by sums (S,) over the rows, in training only.

        NaN and inf count as 0: mixed precision skips the step of such a loss.

        Raises:
            LongTailError: If there are several ranks and no OnlineStateHook.
        """
        if not self.training:
            return
        check(self.is_reduced or get_world_size() == 1, self.needed_hook())
        new = torch.stack(sums).to(self.increments).nan_to_num(0.0, 0.0, 0.0)
        self.increments += new
        if not (self.updates_between_iterations and self.is_reduced):
            self.set_online_state(self.advance(self.online_state(), *new))

    def needed_hook(self) -> str:
        """Return the message of a training without OnlineStateHook."""
        return (
            f'{type(self).__name__}: several ranks would have different '
            "states; add default_hooks=dict(online_state=dict(type='"
            "OnlineStateHook')) to the config"
        )

    def online_state(self) -> dict[str, Tensor]:
        """Return the buffers by their names."""
        return {name: getattr(self, name) for name in self._online}

    def set_online_state(self, state: dict[str, Tensor]) -> None:
        """Set the buffers."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
