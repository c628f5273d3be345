"""Plain loops written from the papers' equations, the losses' reference.

They run in Python floats and share no trick with the code they check:
no vectorisation, no rearranged logarithm.
"""

import math


def softplus(x):
    """log(1 + exp(x)), term by term where exp would overflow."""
    return x if x > 700 else math.log1p(math.exp(x))


def softmax(scores):
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / sum(powers) for power in powers]


def equalization(
    logits,
    labels,
    tail_weight,
    prior_logit=0.0,
    exclude_background=True,
    verified=None,
):
    """EQL of each RoI: Eq. 5 to 7 of Tan et al., CVPR 2020.

    verified says for each row and class whether the image was checked for
    the class; then its weight is 1 (section 4.2).
    """
    losses = []
    for row, (z, label) in enumerate(zip(logits, labels)):
        num_classes = len(z)
        is_foreground = label < num_classes
        exclude = 1.0 if is_foreground or not exclude_background else 0.0
        loss = 0.0
        for j in range(num_classes):
            y = 1.0 if label == j else 0.0
            w = 1.0 - exclude * tail_weight[j] * (1.0 - y)
            if verified is not None and verified[row][j]:
                w = 1.0
            x = z[j] + prior_logit
            # -log(sigmoid(x)) and -log(1 - sigmoid(x))
            loss += w * (softplus(-x) if y else softplus(x))
        losses.append(loss)
    return losses


def drop_weights(labels, is_tail, random):
    """DropLoss's weight of each row and class (Hsieh et al., AAAI 2021).

    random has a number in [0, 1) of each row and class.
    """
    num_classes = len(is_tail)
    num_foreground = num_tail = 0
    for label in labels:
        if label < num_classes:
            num_foreground += 1
            num_tail += is_tail[label]
    weights = []
    for label, u in zip(labels, random):
        row = []
        for j in range(num_classes):
            if j == label or not is_tail[j] or num_foreground == 0:
                dropped = False
            elif label < num_classes:
                dropped = True
            else:
                dropped = u[j] > num_tail / num_foreground
            row.append(0.0 if dropped else 1.0)
        weights.append(row)
    return weights


def weighted_sigmoid(logits, labels, weights, prior_logit=0.0):
    """Sigmoid cross-entropy of each row with a weight per row and class."""
    losses = []
    for z, label, w in zip(logits, labels, weights):
        loss = 0.0
        for j in range(len(z)):
            x = z[j] + prior_logit
            loss += w[j] * (softplus(-x) if label == j else softplus(x))
        losses.append(loss)
    return losses


def weighted_gumbel(logits, labels, weights, prior_logit=0.0):
    """Cross-entropy of p = exp(-exp(-z)) (Alexandridis et al., ECCV 2022)."""
    losses = []
    for z, label, w in zip(logits, labels, weights):
        loss = 0.0
        for j in range(len(z)):
            x = min(max(z[j] + prior_logit, -4.0), 10.0)
            p = math.exp(-math.exp(-x))
            loss -= w[j] * math.log(p if label == j else 1 - p)
        losses.append(loss)
    return losses


def equalized_focal(
    logits,
    labels,
    ratio,
    quality=None,
    gamma=2.0,
    alpha=(0.25, 0.75),
    scale_factor=8.0,
):
    """EFL of each row, and EQFL with qualities (Li et al., CVPR 2022)."""
    losses = []
    for row, (z, label) in enumerate(zip(logits, labels)):
        loss = 0.0
        for j in range(len(z)):
            y = 0.0
            if label == j:
                y = 1.0 if quality is None else quality[row]
            focus = gamma + scale_factor * (1.0 - ratio[j])
            # -log(p) and -log(1 - p)
            ce = y * softplus(-z[j]) + (1.0 - y) * softplus(z[j])
            missing = math.exp(-softplus(-z[j]))  # p
            if label == j:
                missing = abs(math.exp(-softplus(z[j])) - (1.0 - y))
            weight = alpha[0] if label == j else alpha[1]
            loss += weight * focus / gamma * missing**focus * ce
        losses.append(loss)
    return losses


def gumbels(logits, prior_logit=0.0):
    """Rows of exp(-exp(-z)) with a zero for background."""
    rows = []
    for z in logits:
        row = []
        for x in z:
            x = x + prior_logit
            row.append(math.exp(-math.exp(-x)) if x > -700 else 0.0)
        rows.append([*row, 0.0])
    return rows


def equalization_weights(labels, tail_weight):
    """w of each row and class: Eq. 6 of Tan et al., CVPR 2020."""
    weights = []
    for label in labels:
        row = []
        for j in range(len(tail_weight)):
            spared = label < len(tail_weight) and j != label
            row.append(1.0 - tail_weight[j] if spared else 1.0)
        weights.append(row)
    return weights


def sigmoids(logits, prior_logit=0.0):
    """Rows of sigmoids with a zero for background."""
    return [
        [math.exp(-softplus(-(x + prior_logit))) for x in z] + [0.0]
        for z in logits
    ]


def bin_of(instance_count, bin_edges):
    """Half-open bins: a class with exactly an edge's count is above it."""
    index = 0
    for edge in bin_edges:
        if instance_count >= edge:
            index += 1
    return index


def group_probs(logits, instance_count, bin_edges):
    """p_foreground * p_bin(class) for each class, then p_background."""
    num_classes = len(instance_count)
    rows = []
    for z in logits:
        p_foreground, p_background = softmax(z[-2:])
        row = [0.0] * num_classes + [p_background]
        for g, own in enumerate(bins(instance_count, bin_edges)):
            probs = softmax([z[c] for c in [*own, num_classes + g]])
            for c, p in zip(own, probs):
                row[c] = p_foreground * p
        rows.append(row)
    return rows


def cross_entropy(z, columns, true):
    """-log softmax of one column among some."""
    largest = max(z[c] - z[true] for c in columns)
    return largest + math.log(
        sum(math.exp(z[c] - z[true] - largest) for c in columns)
    )


def bins(instance_count, bin_edges):
    """Classes of each bin."""
    return [
        [
            c
            for c in range(len(instance_count))
            if bin_of(instance_count[c], bin_edges) == g
        ]
        for g in range(len(bin_edges) + 1)
    ]


def foreground_terms(logits, labels, num_classes, label_weights=None):
    """(weight, loss) of each row in its last two columns, as one term."""
    terms = []
    for z, label, weight in zip(logits, labels, ones(labels, label_weights)):
        columns = [len(z) - 2, len(z) - 1]
        true = columns[0] if label < num_classes else columns[1]
        terms.append((weight, cross_entropy(z, columns, true)))
    return terms


def group_terms(
    logits,
    labels,
    instance_count,
    bin_edges,
    label_weights=None,
    own_weights=None,
):
    """(weight, loss) of each row in each bin, all `others` counted.

    own_weights multiply the rows of a class in its own bin.
    """
    label_weights = ones(labels, label_weights)
    terms = []
    for g, own in enumerate(bins(instance_count, bin_edges)):
        others = len(instance_count) + g
        has_own = any(
            label in own and weight > 0
            for label, weight in zip(labels, label_weights)
        )
        term = []
        for z, label, weight in zip(logits, labels, label_weights):
            if not has_own:
                weight = 0.0
            if label in own and own_weights is not None:
                weight = weight * own_weights[label]
            true = label if label in own else others
            term.append((weight, cross_entropy(z, [*own, others], true)))
        terms.append(term)
    return terms


def own_terms(logits, labels, instance_count, bin_edges, label_weights=None):
    """(weight, loss) of each row in each bin, where only its own count."""
    terms = []
    for own in bins(instance_count, bin_edges):
        term = []
        for z, label, weight in zip(
            logits, labels, ones(labels, label_weights)
        ):
            if label in own:
                term.append((weight, cross_entropy(z, own, label)))
            else:
                term.append((0.0, 0.0))
        terms.append(term)
    return terms


def ones(labels, label_weights):
    """The given weights, or 1 for each row."""
    return [1.0] * len(labels) if label_weights is None else label_weights


def mean_terms(terms):
    """Each term by the sum of its weights, at least 1."""
    return [
        sum(weight * loss for weight, loss in term)
        / max(sum(weight for weight, _ in term), 1.0)
        for term in terms
    ]


def bin_class_weights(instance_count, bin_edges, rule, weight_range, beta=0.0):
    """Weight of each class among those of its bin, clipped."""
    low, high = weight_range
    weights = [None] * len(instance_count)
    for own in bins(instance_count, bin_edges):
        if own:
            counts = [instance_count[c] for c in own]
            for c, weight in zip(own, class_weights(counts, rule, beta)):
                weights[c] = min(max(weight, low), high)
    return weights


def without_others_probs(logits, instance_count, bin_edges):
    """p_foreground * p_bin(class) for each class, then p_background."""
    rows = []
    for z in logits:
        p_foreground, p_background = softmax(z[-2:])
        row = [0.0] * len(instance_count) + [p_background]
        for own in bins(instance_count, bin_edges):
            if own:
                for c, p in zip(own, softmax([z[c] for c in own])):
                    row[c] = p_foreground * p
        rows.append(row)
    return rows


def without_background_probs(logits, instance_count, bin_edges):
    """p_bin(class) for each class, then the product of the p(others)."""
    rows = []
    for z in logits:
        row = [0.0] * len(instance_count) + [1.0]
        for g, own in enumerate(bins(instance_count, bin_edges)):
            columns = [*own, len(instance_count) + g]
            *p_own, p_others = softmax([z[c] for c in columns])
            for c, p in zip(own, p_own):
                row[c] = p
            row[-1] *= p_others
        rows.append(row)
    return rows


def repeat_factors(classes_of_images, oversample_thr):
    """r(I) of each image: Gupta et al., CVPR 2019, repeat factor sampling."""
    repeats = []
    for classes in classes_of_images:
        repeat = 1.0
        for c in classes:
            num_images_of_c = 0
            for other in classes_of_images:
                if c in other:
                    num_images_of_c += 1
            f = num_images_of_c / len(classes_of_images)
            repeat = max(repeat, math.sqrt(oversample_thr / f))
        repeats.append(repeat)
    return repeats


def instance_aware_repeat_factors(classes_of_images, oversample_thr):
    """r(I) of each image: Yaman et al., arXiv 2305.08069."""
    num_boxes = 0
    for classes in classes_of_images:
        for _ in classes:
            num_boxes += 1
    repeats = []
    for classes in classes_of_images:
        repeat = 1.0
        for c in classes:
            num_images_of_c = num_boxes_of_c = 0
            for other in classes_of_images:
                if c in other:
                    num_images_of_c += 1
                for label in other:
                    if label == c:
                        num_boxes_of_c += 1
            f_image = num_images_of_c / len(classes_of_images)
            f_box = num_boxes_of_c / num_boxes
            f = math.sqrt(f_image * f_box)
            repeat = max(repeat, math.sqrt(oversample_thr / f))
        repeats.append(repeat)
    return repeats


def expected_class_aware_draws(classes_of_images, num_draws):
    """How often each image is drawn: a class first, then one of its images."""
    classes = {c for classes in classes_of_images for c in classes}
    draws = []
    for own in classes_of_images:
        probability = 0.0
        for c in set(own):
            num_images_of_c = sum(
                1 for other in classes_of_images if c in other
            )
            probability += 1 / len(classes) / num_images_of_c
        draws.append(num_draws * probability)
    return draws


def exponential_decay(frequency, threshold, a, n):
    """1 - (a f)^n below lambda, not below 0 (Tan et al., section 4.4)."""
    if frequency >= threshold:
        return 0.0
    return max(1.0 - (a * frequency) ** n, 0.0)


def gompertz_decay(frequency, threshold, a, b, c):
    """1 - a exp(-b exp(-c f)) below lambda (Tan et al., section 4.4)."""
    if frequency >= threshold:
        return 0.0
    return 1.0 - a * math.exp(-b * math.exp(-c * frequency))


def softmax_equalization(logits, labels, num_classes, is_ignored):
    """SEQL of each row: Eq. 9 to 11 of Tan et al., CVPR 2020.

    is_ignored says for each row and class whether beta T(f) is 1. Background
    is no class: it is not ignored, and its rows ignore nothing.
    """
    losses = []
    for z, label, ignored in zip(logits, labels, is_ignored):
        kept = [
            k
            for k in range(len(z))
            if k == label
            or k == num_classes
            or label == num_classes
            or not ignored[k]
        ]
        # relative to the true class, so that no power meets a power
        largest = max(z[k] - z[label] for k in kept)
        total = sum(math.exp(z[k] - z[label] - largest) for k in kept)
        losses.append(largest + math.log(total))
    return losses


def class_weights(instance_count, rule, beta=0.0):
    """Weights of the classes with the mean 1, then background's."""
    rules = {
        'effective number': lambda n: (1 - beta) / (1 - beta**n),
        'inverse': lambda n: 1 / n,
        'inverse square root': lambda n: 1 / math.sqrt(n),
    }
    weights = [rules[rule](max(n, 1)) for n in instance_count]
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights] + [1.0]


def weighted_cross_entropy(logits, labels, weights):
    """-w_y log softmax(z)_y of each row."""
    losses = []
    for z, label in zip(logits, labels):
        largest = max(x - z[label] for x in z)
        total = sum(math.exp(x - z[label] - largest) for x in z)
        losses.append(weights[label] * (largest + math.log(total)))
    return losses


def focal(logits, labels, gamma, alpha, prior_logit):
    """Focal loss of each RoI (Lin et al., ICCV 2017, Eq. 5)."""
    losses = []
    for z, label in zip(logits, labels):
        loss = 0.0
        for j, x in enumerate(z):
            x = x + prior_logit
            if j != label:
                x = -x
            weight = alpha if j == label else 1.0 - alpha
            missing = math.exp(-softplus(x))  # 1 - p^
            loss += weight * missing**gamma * softplus(-x)
        losses.append(loss)
    return losses


def box_iou(a, b):
    """IoU of two boxes [x1, y1, x2, y2]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(area) - both)


def log_sigmoid(x):
    return -softplus(-x)


def sigmoid(x):
    return math.exp(log_sigmoid(x))


def equalization_v2(logits, labels, ratio, gamma, mu, alpha, prior_logit):
    """EQLv2 of each RoI with its weights, and the gradients G+ and G-.

    Tan et al., CVPR 2021. ratio is g of each class; background is the last
    column, has the weights 1 and no gradients.
    """
    num_classes = len(ratio)
    negative = [sigmoid(gamma * (g - mu)) for g in ratio] + [1.0]
    positive = [1.0 + alpha * (1.0 - r) for r in negative]
    losses = []
    grad_pos, grad_neg = [0.0] * num_classes, [0.0] * num_classes
    for z, label in zip(logits, labels):
        loss = 0.0
        for j in range(num_classes + 1):
            x = z[j] + prior_logit
            if j == label:
                loss += positive[j] * softplus(-x)
            else:
                loss += negative[j] * softplus(x)
            if j < num_classes and j == label:
                grad_pos[j] += positive[j] * sigmoid(-x)
            elif j < num_classes:
                grad_neg[j] += negative[j] * sigmoid(x)
        losses.append(loss)
    return losses, grad_pos, grad_neg


def seesaw(logits, labels, counts, p, q, eps):
    """The two terms of each RoI's Seesaw Loss: Wang et al., CVPR 2021.

    counts are the rows of each class so far, those of this batch included.
    Gives the classes' terms and those of foreground against background.
    """
    num_classes = len(counts)
    classes = []
    for z, i in zip(logits, labels):
        if i == num_classes:
            classes.append(0.0)
            continue
        scores = softmax(z[:num_classes])
        shifted = []
        for j in range(num_classes):
            n_i, n_j = max(counts[i], 1.0), max(counts[j], 1.0)
            mitigation = (n_j / n_i) ** p if n_j < n_i else 1.0
            excess = scores[j] / max(scores[i], eps)
            compensation = excess**q if excess > 1.0 else 1.0
            if j == i:
                mitigation = compensation = 1.0
            shifted.append(z[j] + math.log(mitigation * compensation))
        classes.append(cross_entropy(shifted, range(num_classes), i))
    terms = foreground_terms(logits, labels, num_classes)
    return classes, [loss for _, loss in terms]


def weighted_softmax(logits, labels, weights):
    """-log(s_y e^z_y / sum_k s_k e^z_k) of each row."""
    losses = []
    for z, label in zip(logits, labels):
        shifted = [x + math.log(s) for x, s in zip(z, weights)]
        losses.append(cross_entropy(shifted, range(len(z)), label))
    return losses


def mean_scores(logits, labels, scores, momentum):
    """EBL's scores after a batch (Feng et al., ICCV 2021), background last."""
    moved = list(scores)
    for c in range(len(scores) - 1):
        own = [softmax(z)[c] for z, label in zip(logits, labels) if label == c]
        if own:
            mean = sum(own) / len(own)
            moved[c] = momentum * scores[c] + (1.0 - momentum) * mean
    return moved


def effective_class_margin(logits, labels, image_count, background_ratio):
    """ECM of each RoI: Cho and Kraehenbuehl, ECCV 2022."""
    n = [float(max(count, 1)) for count in image_count]
    n.append(background_ratio * sum(n))
    losses = []
    for z, label in zip(logits, labels):
        loss = 0.0
        for j, (x, positives) in enumerate(zip(z, n)):
            negatives = sum(n) - positives
            both = positives**0.25 + negatives**0.25
            plus = math.log(both / negatives**0.25)
            minus = math.log(both / positives**0.25)
            a = negatives / positives
            w = a * math.log((1.0 + a) / a)
            up, down = x + plus, -x + minus
            # -log(e^up / (e^up + e^down)), or with both exchanged
            loss += w * (
                softplus(down - up) if j == label else softplus(up - down)
            )
        losses.append(loss)
    return losses


def independent_background_probs(logits, prior_logit=0.0):
    """p_c (1 - p_background) of sigmoids, and p_background."""
    rows = []
    for z in logits:
        background = z[-1] + prior_logit
        rows.append(
            [sigmoid(x + prior_logit) * sigmoid(-background) for x in z[:-1]]
            + [sigmoid(background)]
        )
    return rows
