"""What the mixing methods beside SMMix must compute, written out with loops; see :mod:`reference`."""

import itertools
import math

import numpy as np
import torch


def box_pixels(box):
    """The pixels ``(row, column)`` inside a box, as a set."""
    top, left, bottom, right = box
    return {(row, col) for row in range(top, bottom) for col in range(left, right)}


def soft_label(source, target, share):
    """``share`` of one label and the rest of the other, as a list over the classes."""
    return [share * source[k].item() + (1 - share) * target[k].item() for k in range(len(source))]


def trans_mix(images, targets, box, attention):
    """Images and labels of TransMix, image by image; the attention is that to the mixed images."""
    batch, channels, height, width = images.shape
    rows, cols = attention.shape[1:]
    pasted = box_pixels(box)
    pixels, result, scores = images.tolist(), images.tolist(), attention.double().tolist()
    labels = []
    for target in range(batch):
        source = batch - 1 - target
        for row, col in pasted:
            for channel in range(channels):
                result[target][channel][row][col] = pixels[source][channel][row][col]
        inside = total = 0.0
        for row in range(rows):
            for col in range(cols):
                total += scores[target][row][col]
                if (row * height // rows, col * width // cols) in pasted:
                    inside += scores[target][row][col]
        share = (len(pasted) / (height * width) + inside / total) / 2
        labels.append(soft_label(targets[source], targets[target], share))
    return torch.tensor(result, dtype=images.dtype), torch.tensor(labels)


def resample(scores, grid):
    """One map of scores, a list of rows, on another grid: bilinearly, under triangles as wide as the larger cells."""
    down, right = (_triangles(old, new) for old, new in zip((len(scores), len(scores[0])), grid, strict=True))
    return [
        [
            sum(by_row[i] * by_col[j] * scores[i][j] for i in range(len(scores)) for j in range(len(scores[0])))
            for by_col in right
        ]
        for by_row in down
    ]


def _triangles(old, new):
    """For each of ``new`` cells of an axis the weights of the ``old`` ones, which sum to 1."""
    step, weights = old / new, []
    for place in range(new):
        centre = (place + 0.5) * step
        near = [max(0.0, 1 - abs(cell + 0.5 - centre) / max(step, 1)) for cell in range(old)]
        weights.append([weight / sum(near) for weight in near])
    return weights


def token_blocks(grid, wanted, draws, tries=10):
    """TokenMix's mask of blocks as a set of tokens, from the list of all numbers that were drawn for it."""
    draws, chosen = iter(draws), set()
    while len(chosen) < wanted:
        for _ in range(tries):
            area, aspect = next(draws), math.exp(next(draws))
            rows, cols = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if rows < grid[0] and cols < grid[1]:
                top, left = next(draws), next(draws)
                new = {(top + i, left + j) for i in range(rows) for j in range(cols)} - chosen
                if new and len(chosen) + len(new) <= wanted:
                    chosen |= new
                    break
        else:
            break
    assert next(draws, None) is None
    return chosen


def token_mix(images, labels, mask, class_map, smoothing, classes):
    """Images and the published labels of TokenMix; labels as numbers, the class map on the teacher's own grid."""
    batch, channels, height, width = images.shape
    rows, cols = len(mask), len(mask[0])
    patch = height // rows, width // cols
    pixels, result = images.tolist(), images.tolist()
    content = []
    for scores in class_map.double().tolist():
        scores = resample([[max(score, 0.0) + 1e-8 for score in row] for row in scores], (rows, cols))
        total = sum(sum(row) for row in scores)
        content.append([[score / total for score in row] for row in scores])
    published = []
    for target in range(batch):
        source = batch - 1 - target
        source_share = target_share = 0.0
        for row in range(rows):
            for col in range(cols):
                if mask[row][col]:
                    source_share += content[source][row][col]
                else:
                    target_share += content[target][row][col]
        for row in range(height):
            for col in range(width):
                if mask[row // patch[0]][col // patch[1]]:
                    for channel in range(channels):
                        result[target][channel][row][col] = pixels[source][channel][row][col]
        soft = [0.0] * classes
        for label, share in ((labels[source], source_share), (labels[target], target_share)):
            for k in range(classes):
                soft[k] += smoothing / (2 * classes)
            soft[label] += share - smoothing / 2
        published.append(soft)
    return torch.tensor(result, dtype=images.dtype), torch.tensor(published)


def binary_cross_entropy(logits, labels):
    """Mean over images and classes."""
    total = 0
    for image in range(len(logits)):
        for k in range(logits.shape[1]):
            positive = 1 / (1 + (-logits[image, k]).exp())
            total = total - labels[image, k] * positive.log() - (1 - labels[image, k]) * (1 - positive).log()
    return total / logits.numel()


def attentive_mix(images, targets, pairs, scores, count, side):
    """Images and labels of AttentiveMix: the ``count`` strongest cells of ``side`` pixels, the first where several tie.

    The scores are on the teacher's own grid.
    """
    _, channels, height, width = images.shape
    rows, cols = height // side, width // side
    pixels, result = images.tolist(), images.tolist()
    strength = [list(itertools.chain(*resample(image, (rows, cols)))) for image in scores.double().tolist()]
    labels = []
    for target, source in enumerate(pairs):
        cells = sorted(range(rows * cols), key=lambda cell: (-strength[source][cell], cell))[:count]
        for cell in cells:
            top, left = cell // cols * side, cell % cols * side
            for row in range(top, top + side):
                for col in range(left, left + side):
                    for channel in range(channels):
                        result[target][channel][row][col] = pixels[source][channel][row][col]
        share = count / (rows * cols)
        labels.append(soft_label(targets[source], targets[target], share))
    return torch.tensor(result, dtype=images.dtype), torch.tensor(labels)


def paste_pixels(images, pairs, chosen):
    """Every image with the pixels ``chosen``, pairs of row and column, copied from its source ``pairs[b]``."""
    pixels, result = images.tolist(), images.tolist()
    for target, source in enumerate(pairs):
        for row, col in chosen:
            for channel in range(images.shape[1]):
                result[target][channel][row][col] = pixels[source][channel][row][col]
    return torch.tensor(result, dtype=images.dtype)


def soft_labels(targets, pairs, shares):
    """``shares[b]`` of the label of the source ``pairs[b]``, the rest of that of image ``b``."""
    return torch.tensor(
        [
            soft_label(targets[source], targets[b], share)
            for b, (source, share) in enumerate(zip(pairs, shares, strict=True))
        ]
    )


def low_frequency_field(noise, decay):
    """FMix's grey field by NumPy, from real and imaginary parts ``(h, w, 2)``."""
    height, width, _ = noise.shape
    spectrum = np.empty((height, width), dtype=complex)
    for row in range(height):
        for col in range(width):
            # Beyond the middle, frequencies are negative.
            cycles = [
                (place if 2 * place < side else place - side) / side for place, side in ((row, height), (col, width))
            ]
            frequency = max(math.sqrt(cycles[0] ** 2 + cycles[1] ** 2), 1 / max(height, width))
            spectrum[row, col] = complex(*noise[row, col]) / frequency**decay
    return np.fft.ifft2(spectrum).real


def spectral_residual(image, width=64, sigma=2.5):
    """Hou and Zhang's saliency of one image ``(C, H, W)`` by NumPy."""
    grey = image.mean(axis=0)
    if grey.shape[1] > width:
        size = max(1, round(grey.shape[0] * width / grey.shape[1])), width
        grey = np.array([[_cell_mean(grey, (row, col), size) for col in range(size[1])] for row in range(size[0])])
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    spectrum = np.fft.fft2(grey)
    height, width = grey.shape
    logs = [[math.log(max(abs(spectrum[row, col]), 1e-8)) for col in range(width)] for row in range(height)]
    residual = np.empty_like(spectrum)
    for row in range(height):
        for col in range(width):
            near = [logs[(row + i) % height][(col + j) % width] for i in (-1, 0, 1) for j in (-1, 0, 1)]
            residual[row, col] = np.exp(logs[row][col] - sum(near) / 9 + 1j * np.angle(spectrum[row, col]))
    power = np.abs(np.fft.ifft2(residual)) ** 2
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-((step / sigma) ** 2) / 2) for step in range(-reach, reach + 1)]
    weights = np.array(weights) / sum(weights)
    for axis in (0, 1):
        power = np.apply_along_axis(lambda line: np.convolve(line, weights)[reach:-reach], axis, power)
    return power


def _cell_mean(grey, cell, size):
    """Mean of the pixels that a cell of a coarser grid touches."""
    rows, cols = (
        slice(place * side // count, -(-(place + 1) * side // count))
        for place, side, count in zip(cell, grey.shape, size, strict=True)
    )
    return grey[rows, cols].mean()


def box_around(centre, share, size):
    """Top, left, bottom, right of CutMix's box around a pixel, clipped."""
    halves = [math.floor(side * math.sqrt(share)) // 2 for side in size]
    top, left = (max(0, place - half) for place, half in zip(centre, halves, strict=True))
    bottom, right = (min(side, place + half) for place, half, side in zip(centre, halves, size, strict=True))
    return top, left, bottom, right


def block_saliency(gradient, blocks):
    """Norm over channels of one gradient ``(C, H, W)``, averaged over blocks, normalised."""
    channels, height, width = gradient.shape
    sums = [[0.0] * blocks for _ in range(blocks)]
    for row in range(height):
        for col in range(width):
            norm = math.sqrt(sum(gradient[channel, row, col].item() ** 2 for channel in range(channels)))
            sums[row * blocks // height][col * blocks // width] += norm
    total = sum(map(sum, sums))
    return [[value / total for value in row] for row in sums]


def border_jump(first, second, block, below, blocks, cell):
    """Colour jump from a block of image ``first`` to the next block of ``second``, ``(C, H, W)`` each, in cells."""
    height, width = (side // blocks for side in first.shape[1:])
    part = [max(size for size in range(1, cell + 1) if side % size == 0) for side in (height, width)]
    top, left = block[0] * height, block[1] * width
    total = count = 0
    for start in range(0, width if below else height, part[1] if below else part[0]):
        if below:
            before = (slice(top + height - part[0], top + height), slice(left + start, left + start + part[1]))
            after = (slice(top + height, top + height + part[0]), before[1])
        else:
            before = (slice(top + start, top + start + part[0]), slice(left + width - part[1], left + width))
            after = (before[0], slice(left + width, left + width + part[1]))
        for channel in range(len(first)):
            total += abs(first[channel][before].mean() - second[channel][after].mean()).item()
            count += 1
    return total / count


def puzzle_energy(target, source, saliency, share, shares, weights, labels, cell=4):
    """Energy of one labelling of one pair of images, term by term.

    Args:
        target, source: Images ``(C, H, W)`` with colours in [0, 1].
        saliency: Of target and source, ``n x n`` lists each.
        share: The source's wanted share.
        shares: The source's share at each block, an ``n x n`` list.
        weights: beta, gamma, eta.
        labels: Number of labels.
    """
    beta, gamma, eta = weights
    blocks = len(shares)
    beta = beta / (16 * blocks)
    energy = 0.0
    for row in range(blocks):
        for col in range(blocks):
            z = shares[row][col]
            energy += z * saliency[0][row][col] + (1 - z) * saliency[1][row][col]
            of_source = round(z * (labels - 1))
            chance = math.comb(labels - 1, of_source) * share**of_source * (1 - share) ** (labels - 1 - of_source)
            energy -= eta / blocks**2 * math.log(max(chance, 1e-8))
            for below, other in ((True, (row + 1, col)), (False, (row, col + 1))):
                if max(other) == blocks:
                    continue
                next_z = shares[other[0]][other[1]]
                images = (target, source)
                jump = {
                    (u, v): border_jump(images[u], images[v], (row, col), below, blocks, cell)
                    for u in (0, 1)
                    for v in (0, 1)
                }
                energy += beta * (z - next_z) ** 2 + beta * gamma * _extended(jump, z, next_z)
    return energy


def _extended(jump, z, next_z):
    """A cost of two labels of 0 or 1, in between extended by straight lines and the square of the difference."""
    if {z, next_z} <= {0, 1}:
        return jump[z, next_z]
    square = (jump[0, 1] + jump[1, 0] - jump[0, 0] - jump[1, 1]) / 2
    # What is left at the corners once the square is taken away is the sum of two straight lines.
    left = {key: value - square * (key[0] - key[1]) ** 2 for key, value in jump.items()}
    return left[0, 0] + z * (left[1, 0] - left[0, 0]) + next_z * (left[0, 1] - left[0, 0]) + square * (z - next_z) ** 2


def arrange_blocks(image, order, blocks):
    """One image ``(C, H, W)`` with block ``order[place]`` at each place."""
    height, width = (side // blocks for side in image.shape[1:])
    moved = image.clone()
    for place, block in enumerate(order):
        to_row, to_col = place // blocks * height, place % blocks * width
        row, col = block // blocks * height, block % blocks * width
        moved[:, to_row : to_row + height, to_col : to_col + width] = image[:, row : row + height, col : col + width]
    return moved


def best_order(saliency, visible, weight):
    """Of all orders of a few blocks the cheapest: distances moved to visible places, less the saliency shown there."""
    blocks = len(saliency)
    places = [(row, col) for row in range(blocks) for col in range(blocks)]

    def cost(order):
        total = 0.0
        for place, block in enumerate(order):
            (row, col), (old_row, old_col) = places[place], places[block]
            distance = (row - old_row) ** 2 + (col - old_col) ** 2
            if visible[row][col]:
                total += weight * distance / (blocks - 1) ** 2 - saliency[old_row][old_col]
        return total

    return min(itertools.permutations(range(blocks**2)), key=cost)
