"""Masks as polygons that pycocotools reads back pixel by pixel."""

import cv2
import numpy as np


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of a mask, along the edges of its pixels.

    COCO's polygons cannot have holes. A mask with a hole is cut in two through it, so that the polygons together cover
    exactly the mask.

    Args:
        mask (np.ndarray): ``(H, W)`` bool.

    Returns:
        list[list[float]]: ``[x1, y1, x2, y2, ...]`` each, in pixels from the upper left corner; empty for an empty
        mask.
    """
    column = _column_through_a_hole(mask)
    if column is not None:
        left, right = mask.copy(), mask.copy()
        left[:, column:] = False
        right[:, :column] = False
        return mask_to_polygons(left) + mask_to_polygons(right)
    # OpenCV's outlines run through the centres of pixels. With each pixel enlarged to four, the centres on either side
    # of an edge round to that edge.
    enlarged = np.kron(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
    outlines, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((outline[:, 0] + 1) // 2).astype(float).ravel().tolist() for outline in outlines]


def _column_through_a_hole(mask: np.ndarray) -> int | None:
    """Finds a column inside a hole, if there is one; a cut before it opens the hole on at least one side."""
    # Diagonal neighbours are connected in the mask, as in cv2.findContours, and therefore not in the outside.
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    # Component 0 is the mask, the one at the corner is the true outside, and all others are holes.
    holes = [boxes[i] for i in range(1, count) if boxes[i][0] > 0]
    return int(holes[0][0] - 1 + (holes[0][2] + 1) // 2) if holes else None
