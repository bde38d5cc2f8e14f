"""Rows of unequal length as one rectangle and its mask. B = rows, T = tokens; a mask is true where the token counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def left_padded(rows: Sequence[Sequence[int]], *, pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (B, T) and their mask, real tokens at the right end."""
    width = max(len(row) for row in rows)
    ids_BT = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
    mask_BT = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows], device=device)
    return ids_BT, mask_BT


def right_padded(
    rows: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids (B, T) and their mask, real tokens at the left end."""
    width = max(len(row) for row in rows)
    ids_BT = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows], device=device)
    mask_BT = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=device)
    return ids_BT, mask_BT
