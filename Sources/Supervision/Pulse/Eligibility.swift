package import FoundationEssentials

/// Which issues the pulse may work on, and in what order (the supervisor's own rules: candidates are opt-out).
package struct Eligibility: Sendable {
    package var login: String
    /// Empty: none is required.
    package var requiredLabel = ""

    private static let leastAge = 30.0
    private static let excluding: Set = [
        "status:blocked", "supervisor", "persistent", "routine-tracking", "infrastructure", "parent-task", "meta",
        "no-auto-dispatch", "hold-for-review", "publication:pending", "status:done",
    ]
    static let activeLabels = ["status:queued", "status:in-progress", "status:in-review", "status:claimed"]
    private static let opening = "auto-dispatch"

    package init(login: String) { self.login = login }

    /// Why the issue isn't worked on; nil when it may be.
    package func problem(_ issue: Issue, now: Date) -> String? {
        let labels = Set(issue.labels.map { $0.lowercased() })
        if issue.isPullRequest { return "it is a pull request" }
        if !issue.isOpen { return "it is closed" }
        if now.timeIntervalSince(issue.createdAt) < Eligibility.leastAge { return "it is younger than 30 s" }
        if !requiredLabel.isEmpty, !labels.contains(requiredLabel.lowercased()) {
            return "it lacks the label \(requiredLabel)"
        }
        let found = labels.first { Eligibility.excluding.contains($0) || $0.hasPrefix("needs-") }
        if let found { return "it has the label \(found)" }
        let isOpened = labels.contains(Eligibility.opening)
        let active = labels.first(where: Eligibility.activeLabels.contains)
        if let foreign = issue.assignees.first(where: { $0.lowercased() != login.lowercased() }) {
            return "it is assigned to \(foreign)"
        }
        if labels.contains("origin:interactive"), !issue.assignees.isEmpty, !isOpened {
            return "somebody works on it interactively"
        }
        if let active, active != "status:queued", !isOpened { return "it has the label \(active)" }
        return nil
    }

    /// More is better; ties go to the oldest.
    package static func score(_ issue: Issue, in repository: PulseRepository, now: Date) -> Int {
        let labels = Set(issue.labels.map { $0.lowercased() })
        func has(_ name: String) -> Bool { labels.contains(name) || labels.contains("priority:" + name) }
        let kinds = [
            ("critical", 10_000), ("high", 9000), ("medium", 8000), ("bug", 7000), ("enhancement", 6000),
            ("quality-debt", 5000), ("low", 3500),
        ]
        var score = repository.score + (kinds.first { has($0.0) }?.1 ?? 3000)
        if labels.contains("tier:simple") { score += 2500 }
        if labels.contains("tier:standard") { score += 1200 }
        if labels.contains("tier:thinking") { score -= 1200 }
        if labels.contains("status:available") || labels.contains("worker-ready") { score += 1000 }
        if labels.contains("good first issue") { score += 800 }
        if labels.contains(opening) { score += 300 }
        let days = Int(max(0, now.timeIntervalSince(issue.createdAt)) / 86_400)
        return score + min(900, 25 * days)
    }
}
