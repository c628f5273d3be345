"""Long-tail losses: one paper per file, pure functions and thin modules."""

from mmdet_longtail.models.losses.balanced_group_softmax import (
    BalancedGroupSoftmaxLoss,
    BalancedGroupSoftmaxWithoutBackgroundLoss,
    BalancedGroupSoftmaxWithoutOthersLoss,
    ReweightedBalancedGroupSoftmaxLoss,
    balanced_group_softmax,
    group_softmax_probs,
    sample_others,
)
from mmdet_longtail.models.losses.balanced_softmax import (
    BalancedSoftmaxLoss,
    balanced_softmax_loss,
)
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.losses.drop import DropLoss, drop_weight
from mmdet_longtail.models.losses.effective_class_margin import (
    EffectiveClassMarginLoss,
    effective_class_margin_loss,
)
from mmdet_longtail.models.losses.equalization import (
    DenseEqualizationLoss,
    EqualizationLoss,
    SoftmaxEqualizationClassificationLoss,
    SoftmaxEqualizationLoss,
    equalization_loss,
    equalization_weight,
    softmax_equalization_loss,
)
from mmdet_longtail.models.losses.equalization_v2 import (
    EqualizationLossV2,
    equalization_v2_gradients,
    equalization_v2_loss,
    equalization_v2_weights,
)
from mmdet_longtail.models.losses.equalized_focal import (
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    equalized_focal_loss,
    sum_gradients,
)
from mmdet_longtail.models.losses.equilibrium import EquilibriumLoss
from mmdet_longtail.models.losses.federated import (
    DenseFederatedLoss,
    FederatedLoss,
    VerifiedFederatedLoss,
    federated_loss,
    sample_classes,
)
from mmdet_longtail.models.losses.focal import RoIFocalLoss
from mmdet_longtail.models.losses.gumbel import (
    GumbelDropLoss,
    GumbelEqualizationLoss,
    gumbel_cross_entropy,
)
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.models.losses.reweighted_softmax import (
    EffectiveNumberClassWeight,
    InverseClassWeight,
    InverseSquareRootClassWeight,
    ReweightedSoftmaxLoss,
)
from mmdet_longtail.models.losses.seesaw import SyncSeesawLoss, seesaw_loss
from mmdet_longtail.models.losses.tau_norm_select import (
    TauNormSelectLoss,
    tau_norm_scale,
)
from mmdet_longtail.structures.tail_weight import (
    ExponentialTailWeight,
    GompertzTailWeight,
    InstanceCountTailWeight,
    ThresholdTailWeight,
)
