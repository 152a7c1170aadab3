"""The fixed words of scans and comparisons, in every language of the reports."""

from __future__ import annotations

from doctor.support.texts import Text

STATES: dict[str, Text] = {
    "failed": Text("failed", "실패", "失败"),
    "sound": Text("sound", "정상", "正常"),
    "unclear": Text("unclear", "알 수 없음", "无法判断"),
    "unreadable": Text("unreadable", "읽을 수 없음", "无法读取"),
    "too_slow": Text("cut off: too slow", "시간 초과로 중단", "超时中止"),
    "too_large": Text("cut off: too much memory", "메모리 초과로 중단", "内存超限中止"),
    "crashed": Text("analysis crashed", "분석 중 비정상 종료", "分析时崩溃"),
}
VERDICTS: dict[str, Text] = {
    "first": Text("first attempt", "첫 시도", "首次尝试"),
    "helped": Text("helped", "효과 있음", "有效"),
    "other_failure": Text("another failure", "다른 원인으로 실패", "换了一种失败"),
    "no_help": Text("did not help", "효과 없음", "无效"),
    "repeated": Text("nothing changed, same failure", "변경 없이 같은 실패", "没有改动，同样失败"),
    "broke": Text("broke it", "실패를 일으킴", "导致失败"),
    "unknown": Text("cannot tell", "판단할 수 없음", "无法判断"),
}
SAY: dict[str, Text] = {
    "title": Text("Training runs", "학습 실행", "训练运行"),
    "runs": Text("runs", "실행", "运行"),
    "causes": Text("What failed and why", "무엇이 왜 실패했나", "哪些失败，为什么"),
    "clusters": Text("Failures that no rule knows", "규칙이 없는 실패", "没有规则覆盖的失败"),
    "cluster_help": Text(
        "A draft of a rule for one of them: lfdoctor rules draft ID --scan FILE",
        "규칙 초안 만들기: lfdoctor rules draft ID --scan FILE",
        "为其中一个生成规则草稿：lfdoctor rules draft ID --scan FILE",
    ),
    "guilty": Text("What separates failed runs from good ones", "실패한 실행과 정상 실행을 가르는 차이", "失败与正常运行的区别"),
    "history": Text("Jobs and their attempts", "작업별 시도", "各任务的历次尝试"),
    "timeline": Text("When runs ended", "실행이 끝난 시각", "运行结束时间"),
    "all": Text("all", "전체", "全部"),
    "filter": Text("filter", "찾기", "筛选"),
    "path": Text("run", "실행", "运行"),
    "state": Text("state", "상태", "状态"),
    "cause": Text("cause", "원인", "原因"),
    "evidence": Text("evidence", "근거", "证据"),
    "steps": Text("steps", "스텝", "步数"),
    "loss": Text("loss", "손실", "损失"),
    "ended": Text("ended", "종료", "结束"),
    "job": Text("job", "작업", "任务"),
    "size": Text("bytes", "바이트", "字节"),
    "more": Text(
        "The page shows the first {shown} of {total} runs, failed ones first; the table holds all.",
        "{total}개 중 실패한 것부터 {shown}개를 표시합니다. 전체는 표 파일에 있습니다.",
        "本页按失败优先显示 {total} 个运行中的前 {shown} 个；表格文件中有全部。",
    ),
    "good_failed": Text("{good} good, {failed} failed", "정상 {good}개, 실패 {failed}개", "{good} 个正常，{failed} 个失败"),
    "cannot_tell": Text(
        "Cannot tell: no difference separates failed from good runs better than chance would.",
        "판단할 수 없음: 우연보다 뚜렷하게 실패를 가르는 차이가 없습니다.",
        "无法判断：没有哪处差异比随机更能区分失败与正常的运行。",
    ),
    "all_failed": Text("Cannot tell: every run failed.", "판단할 수 없음: 모든 실행이 실패했습니다.", "无法判断：所有运行都失败了。"),
    "none_failed": Text("No run failed.", "실패한 실행이 없습니다.", "没有失败的运行。"),
    "no_difference": Text(
        "Cannot tell: the runs do not differ in anything that is known.",
        "판단할 수 없음: 알려진 차이가 없습니다.",
        "无法判断：已知信息中这些运行没有差异。",
    ),
    "suspect": Text(
        "{key} {question}: {failed_with} of {with_} failed, otherwise {failed_without} of {without} (p {adjusted})",
        "{key} {question}: {with_}개 중 {failed_with}개 실패, 그 외 {without}개 중 {failed_without}개 실패 (p {adjusted})",
        "{key} {question}：{with_} 个中 {failed_with} 个失败，其余 {without} 个中 {failed_without} 个失败（p {adjusted}）",
    ),
    "same": Text("cannot be told apart from {names}", "{names}와(과) 구별할 수 없음", "与 {names} 无法区分"),
    "differences": Text("Differences", "차이", "差异"),
    "curves": Text("Learning curves", "학습 곡선", "学习曲线"),
    "named_first": Text(
        "Options that the diagnosis would change stand first.",
        "진단에서 변경을 권하는 옵션이 먼저 나옵니다.",
        "诊断建议修改的选项排在最前。",
    ),
    "next": Text("next", "다음", "下一页"),
    "proposed": Text("Proposed next", "다음 제안", "下一步建议"),
    "dashed": Text("Failed runs are dashed.", "실패한 실행은 점선입니다.", "失败的运行用虚线表示。"),
    "show_runs": Text("show these runs", "이 실행 보기", "查看这些运行"),
    "previous": Text("previous", "이전", "上一页"),
    "left_out": Text(
        "{count} logs that are no training runs were left out",
        "학습 실행이 아닌 로그 {count}개는 제외했습니다",
        "已略过 {count} 个不是训练运行的日志",
    ),
}


def say(name: str, lang: str, **values: object) -> str:
    """A sentence in one language, its placeholders filled."""
    return SAY[name].in_language(lang).format(**values)
