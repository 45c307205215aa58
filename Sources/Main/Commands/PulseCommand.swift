import Supervision

extension SubCommand {
    /// A round waits for its races, and pauses between launches.
    private static let roundSeconds = 900

    static let pulse = SubCommand(
        name: "pulse", summary: "Show the pulse, or have it look for work on GitHub once, now.",
        options: [
            .init("--once", nil, "Run one round, and say what was decided of each issue, and why."),
            .init("--dry-run", nil, "With --once: only say what would be done."),
        ] + Target.options,
        run: { arguments in
            try arguments.requireOperands()
            guard arguments.has("--once") || !arguments.has("--dry-run") else {
                throw UsageError(message: "--dry-run needs --once")
            }
            var target = try Target(arguments)
            if arguments.has("--once") { target.client.timeout = roundSeconds }
            let path = "/pulse" + (arguments.has("--dry-run") ? "?dry_run=1" : "")
            let answer = try target.answer(arguments.has("--once") ? "POST" : "GET", path).json()
            Terminal.out(arguments.has("--json") ? answer.text : text(answer))
            return (answer["problems"]?.array ?? []).isEmpty ? 0 : 1
        })

    private static func text(_ pulse: JSONValue) -> String {
        let rows = (pulse["decisions"]?.array ?? []).map { decision in
            [
                "\(decision["repo"]?.string ?? "")#\(decision["number"]?.integer ?? 0)",
                "\(decision["score"]?.integer ?? 0)",
                decision["verdict"]?.string ?? "", decision["reason"]?.string ?? "", decision["title"]?.string ?? "",
            ]
        }
        var text = "pulse \(pulse["enabled"]?.bool == true ? "on" : "off")"
        if let last = pulse["last_round"]?.string { text += ", last round \(last)" }
        if let next = pulse["next_round"]?.string { text += ", next \(next)" }
        if let left = pulse["requests_left"]?.integer { text += ", \(left) requests left" }
        text += "\n"
        for claim in pulse["claims"]?.array ?? [] {
            text += "claimed \(claim["issue"]?.string ?? "") as \(claim["task_id"]?.string ?? "")\n"
        }
        for problem in (pulse["problems"]?.array ?? []).compactMap(\.string) {
            text += Terminal.styled("problem", .red) + " \(Terminal.foreign(problem))\n"
        }
        return text + (rows.isEmpty ? "" : Terminal.table(["ISSUE", "SCORE", "VERDICT", "WHY", "TITLE"], rows))
    }
}
