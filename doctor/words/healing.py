"""What healing says of its attempts, in every language of the reports."""

from __future__ import annotations

from doctor.support.texts import Text

AS_GIVEN = Text("As it was started.", "처음 시작한 그대로입니다.", "按最初的方式启动。")
AGAIN = Text(
    "Nothing in the config explains the failure, so it may pass: the same again.",
    "설정으로 설명되지 않는 실패라 일시적일 수 있어 그대로 다시 시작합니다.",
    "配置解释不了这次失败，可能是偶发的：原样再来一次。",
)
ELSEWHERE = Text(
    "That checkpoint does not load: from an earlier one, or from zero.",
    "그 체크포인트를 불러올 수 없어 이전 체크포인트나 처음부터 시작합니다.",
    "该检查点无法加载：改用更早的检查点，或从头开始。",
)
NO_REPORT = Text(
    "Nothing could be read of the failed run, so there is nothing to go by.",
    "실패한 실행에서 읽을 수 있는 것이 없어 판단할 근거가 없습니다.",
    "失败的运行没有留下可读的内容，无从判断。",
)
INTERRUPTED = Text(
    "It was stopped from outside; whoever did that did not want it to go on.",
    "외부에서 중지했으므로 다시 시작하지 않습니다.",
    "它是从外部被停止的，因此不再启动。",
)
NO_CONFIG = Text(
    "The command names no training YAML, so there is nothing to patch or to resume with.",
    "명령에 학습 YAML이 없어 패치하거나 이어서 시작할 수 없습니다.",
    "命令中没有训练 YAML，因此无法修补或继续。",
)
UNKNOWN = Text(
    "The same unknown failure came back without any progress.",
    "원인을 알 수 없는 같은 실패가 진전 없이 반복되었습니다.",
    "同样的未知失败再次出现，没有任何进展。",
)
NOTHING_FAILED = Text(
    "Nothing has failed so far; the training would be started as it is:",
    "아직 실패한 것이 없습니다. 학습을 그대로 시작합니다:",
    "目前没有失败；训练将原样启动：",
)
HEALED = Text("The training finished.", "학습이 끝까지 완료되었습니다.", "训练已完成。")


def because(says: str) -> Text:
    """Why an attempt differs from the one before: the remedies' own words (in the report's language already)."""
    return Text(says, says, says)


def restarts_used(count: int) -> Text:
    """The budget that the user gave is spent."""
    return Text(f"All {count} restarts are used up.", f"허용된 재시작 {count}회를 모두 사용했습니다.", f"允许的 {count} 次重启已用完。")


def gives_up(title: str, by_hand: str, spent: bool) -> Text:
    """Nothing is left that a machine may try for this cause."""
    en = "Everything that was worth trying has been tried" if spent else "No change of the config that is left can help"
    ko = "시도할 만한 것을 모두 시도했습니다" if spent else "설정을 바꿔서 해결할 방법이 더 없습니다"
    zh = "值得尝试的都已尝试" if spent else "已没有可以解决问题的配置更改"
    tail = f" {by_hand}" if by_hand else ""
    return Text(f"{en}: {title}.{tail}", f"{ko}: {title}.{tail}", f"{zh}：{title}。{by_hand}")


def resumes(path: str, redone: int) -> Text:
    """Where an attempt goes on."""
    return Text(
        f"Goes on from {path}: {redone} steps are trained again.",
        f"{path}에서 이어서 학습합니다. {redone} 스텝을 다시 학습합니다.",
        f"从 {path} 继续：重新训练 {redone} 步。",
    )


def starts_anew(redone: int) -> Text:
    """Why there is nothing to go on from."""
    return Text(
        f"Starts from zero: {redone} steps are trained again.",
        f"처음부터 시작합니다. {redone} 스텝을 다시 학습합니다.",
        f"从头开始：重新训练 {redone} 步。",
    )


def made_room(count: int, limit: int) -> Text:
    """Checkpoints were deleted."""
    return Text(
        f"The disk is full: {count} checkpoint folders of this run beyond save_total_limit {limit} were deleted.",
        f"디스크가 가득 차서 이 실행의 체크포인트 중 save_total_limit {limit}을 넘는 폴더 {count}개를 삭제했습니다.",
        f"磁盘已满：删除了本次运行中超出 save_total_limit {limit} 的 {count} 个检查点文件夹。",
    )
