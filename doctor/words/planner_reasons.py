"""The reasons and notes of a plan, in every language of the reports."""

from __future__ import annotations

from collections.abc import Sequence

from doctor.support.texts import Text

EMPTY = Text("", "", "")
CHOSEN = Text("In the patch.", "패치에 포함되었습니다.", "已包含在补丁中。")
LATER = Text(
    "Not needed yet: the next step if the patch is not enough.",
    "아직 필요하지 않습니다. 패치로 부족하면 다음 단계로 적용합니다.",
    "暂时不需要；补丁不够时作为下一步。",
)
POSSIBLE = Text("Possible, but not part of the patch.", "적용할 수 있지만 패치에는 넣지 않았습니다.", "可以采用，但没有放进补丁。")
OTHER_WAY = Text("Another way to the same end.", "같은 목적의 다른 방법입니다.", "目的相同的另一种做法。")
UNSURE = Text(
    "Possible, but the cause is not sure enough for a patch.",
    "적용할 수 있지만 원인이 확실하지 않아 패치하지 않습니다.",
    "可以采用，但原因不够确定，没有放进补丁。",
)
DONE = Text("Already so.", "이미 적용되어 있습니다.", "已经如此。")
NOT_HERE = Text("Cannot help in this configuration.", "이 설정에서는 도움이 되지 않습니다.", "在这个配置下没有帮助。")
NOT_THIS_CAUSE = Text("Does not act on this cause.", "이 원인에는 작용하지 않습니다.", "对这个原因不起作用。")
HARMFUL = Text("Would make it worse here.", "여기서는 오히려 나빠집니다.", "在这里会让情况更糟。")
BY_HAND = Text("To be done by hand.", "직접 해야 합니다.", "需要手动完成。")
WITH_STEP_3 = Text(
    "Raised with step 3 by as much as the batch per GPU falls.",
    "3단계에서 배치를 줄인 만큼 함께 늘렸습니다.",
    "与第 3 步配合，按单卡批大小的降幅等比例提高。",
)
NO_PREDICTION = Text(
    "What this frees cannot be predicted (model or card unknown, or more was held than the model explains): the guide's order decides.",
    "얼마나 줄어들지 예측할 수 없어(모델이나 GPU를 알 수 없거나, 모델로 설명되지 않는 메모리가 쓰임) 가이드의 순서를 따랐습니다.",
    "无法预测能省多少显存（模型或显卡未知，或者占用的显存超出模型所能解释的范围），因此按指南的顺序来。",
)
NOT_ENOUGH = Text(
    "Even so it is not predicted to fit: a smaller model, a larger card or more cards are needed.",
    "이렇게 해도 맞지 않을 것으로 예측됩니다. 더 작은 모델, 더 큰 GPU, 또는 더 많은 GPU가 필요합니다.",
    "即使如此，预测仍然放不下：需要更小的模型、更大的显卡或更多显卡。",
)
JSON_CONFIG = Text(
    "LLaMA-Factory 0.9.4 and 0.9.5 cannot read .json configs (AttributeError); save it as YAML.",
    "LLaMA-Factory 0.9.4와 0.9.5는 .json 설정을 읽지 못합니다(AttributeError). YAML로 저장하세요.",
    "LLaMA-Factory 0.9.4 和 0.9.5 读不了 .json 配置（AttributeError），请另存为 YAML。",
)
NOT_EDITED = Text(
    "Your YAML could not be edited safely (anchors or an unusual style); use the key=value overrides.",
    "YAML을 안전하게 수정할 수 없습니다(앵커 또는 특이한 형식). key=value 덮어쓰기를 사용하세요.",
    "无法安全地修改你的 YAML（含锚点或写法特殊），请用 key=value 覆盖。",
)
NO_RESUME = Text(
    "It starts anew: a resumed run would restore the old learning rate, schedule and sizes from the checkpoint.",
    "처음부터 시작합니다. 이어서 하면 체크포인트의 예전 학습률, 스케줄, 크기가 복원됩니다.",
    "从头开始：断点续训会从检查点恢复旧的学习率、调度和批大小。",
)
FIRST_TOKENISE = Text(
    "The tokenised dataset was made with the old options, so a new one is written beside it.",
    "토큰화된 데이터셋은 예전 옵션으로 만들어졌으므로 옆에 새로 저장합니다.",
    "已分词的数据集是用旧选项生成的，所以会在旁边另外写一份新的。",
)


def together(texts: Sequence[Text]) -> Text:
    """Several whole sentences as one text."""
    return Text(" ".join(one.en for one in texts), " ".join(one.ko for one in texts), "".join(one.in_language("zh") for one in texts))


def consequence(rule: str) -> Text:
    """Why nothing is done about a finding that another one explains."""
    return Text(
        f"A consequence of {rule}: cure that.", f"{rule}의 결과입니다. 그 원인을 해결하세요.", f"这是 {rule} 的后果，请解决那个原因。"
    )


def conflict(title: Text) -> Text:
    """Why a remedy gives way to another finding's."""
    return Text(
        f'Gives way to "{title.en}", which is more severe.',
        f"더 심각한 “{title.ko}”에 양보합니다.",
        f"让位于更严重的“{title.in_language('zh')}”。",
    )


def shared(title: Text) -> Text:
    """A remedy that another finding's patch brings anyway."""
    return Text(
        f'In the patch for "{title.en}" already.',
        f"“{title.ko}” 때문에 이미 패치에 포함되었습니다.",
        f"已因“{title.in_language('zh')}”包含在补丁中。",
    )


def tried(run: str) -> Text:
    """Why a remedy is not proposed again: another attempt of this job had it and failed of the same cause."""
    return Text(
        f"Tried before: {run} had it and failed of the same cause.",
        f"이미 시도했습니다. {run}에서 적용했지만 같은 원인으로 실패했습니다.",
        f"已经试过：{run} 用了它，仍因同一原因失败。",
    )


def rejected(title: Text) -> Text:
    """Why a remedy cannot be taken: the config rule that would object afterwards."""
    return Text(
        f"LLaMA-Factory would refuse the result: {title.en}",
        f"적용하면 LLaMA-Factory가 거부합니다: {title.ko}",
        f"改成这样会被 LLaMA-Factory 拒绝：{title.in_language('zh')}",
    )


def unknown(name: str) -> Text:
    """A remedy that needs a value which the run did not tell."""
    return Text(f"The run does not tell {name}.", f"실행 기록에서 {name} 값을 알 수 없습니다.", f"从运行记录中看不出 {name}。")


def frees_nothing(gib: float) -> Text:
    """A step that is predicted to free next to nothing."""
    return Text(
        f"Predicted to free {gib:.1f} GiB: not worth it.",
        f"{gib:.1f} GiB만 줄어들 것으로 예측되어 적용할 가치가 없습니다.",
        f"预测只能省 {gib:.1f} GiB，不值得。",
    )


def frees(gib: float) -> Text:
    """A step in the patch with what it is predicted to free."""
    return Text(
        f"In the patch; predicted to free {gib:.1f} GiB.",
        f"패치에 포함되었습니다. {gib:.1f} GiB가 줄어들 것으로 예측됩니다.",
        f"已包含在补丁中，预测可省 {gib:.1f} GiB。",
    )


def new_folder(path: str) -> Text:
    """Why output_dir changes."""
    return Text(
        f"output_dir is new ({path}): in the old one LLaMA-Factory would resume the failed run's checkpoint without asking.",
        f"output_dir을 새로 지정했습니다({path}). 기존 폴더에서는 LLaMA-Factory가 묻지 않고 실패한 실행의 체크포인트에서 이어서 합니다.",
        f"output_dir 改成了新目录（{path}）：在旧目录里 LLaMA-Factory 会不加询问地从失败那次的检查点续训。",
    )


def install(packages: str) -> Text:
    """Packages that the chosen remedies need."""
    return Text(f"Needs: pip install {packages}", f"필요한 패키지: pip install {packages}", f"需要：pip install {packages}")


def deepspeed_file(path: str, key: str, value: str) -> Text:
    """A change in the file that `deepspeed` names."""
    return Text(f"In {path}: set {key} to {value}.", f"{path}에서 {key}를 {value}(으)로 바꾸세요.", f"在 {path} 中把 {key} 设为 {value}。")


def on_command_line(key: str) -> Text:
    """A key that the launch command overrides."""
    return Text(
        f"{key} is also given on the command line, which wins over the file: change it there too.",
        f"{key}는 명령줄에도 지정되어 파일보다 우선합니다. 명령줄에서도 바꾸세요.",
        f"{key} 在命令行中也有指定，命令行优先于文件，那里也要改。",
    )


def batch_changes(before: int, after: int) -> Text:
    """The effective batch could not be kept exactly."""
    return Text(
        f"The effective batch changes from {before} to {after} samples per step.",
        f"유효 배치가 스텝당 {before}에서 {after}개로 바뀝니다.",
        f"每步的有效批大小从 {before} 变为 {after} 个样本。",
    )


def no_such_option(key: str, package: str, version: str) -> Text:
    """An option that the installed version lacks."""
    name = {"llamafactory": "LLaMA-Factory"}.get(package, package)
    return Text(
        f"{name} {version} has no option {key}.", f"{name} {version}에는 {key} 옵션이 없습니다.", f"{name} {version} 没有 {key} 这个选项。"
    )
