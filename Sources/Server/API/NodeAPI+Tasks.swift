import FoundationEssentials
import Supervision

/// A page of the history.
private struct TasksView: Encodable {
    struct Task: Encodable {
        var task_id: String
        var repo: String
        var state: TaskState
        var outcome: TaskOutcome?
        var reason: String
        var created_at: Date
        var ended_at: Date?
        var attempts: Int
        var pull_request: String?
        var usage: Usage?

        init(_ summary: TaskSummary) {
            task_id = summary.id
            repo = summary.repo
            state = summary.state
            outcome = summary.outcome
            reason = summary.reason
            created_at = summary.createdAt
            ended_at = summary.endedAt
            attempts = summary.attempts
            pull_request = summary.pullRequest
            usage = summary.usage
        }
    }

    var tasks: [Task]
    /// What `before` takes for the next page.
    var next: String?

    func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(tasks, forKey: .tasks)
        try values.encode(next, forKey: .next)  // null on the last page
    }

    private enum CodingKeys: String, CodingKey { case tasks, next }
}

extension NodeAPI {
    private static let defaultPage = 50
    private static let largestPage = 500

    func tasks(_ request: HTTPRequest) async -> HTTPResponse {
        var filter = TaskFilter()
        if let name = request.parameter("state") {
            guard let state = TaskState(rawValue: name) else {
                return .wrongParameter(
                    "state", "must be one of \(TaskState.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            filter.state = state
        }
        filter.repo = request.parameter("repo")
        if let before = request.parameter("before") {
            guard let cursor = TaskCursor(before) else {
                return .wrongParameter("before", "must be the next of an earlier page")
            }
            filter.before = cursor
        }
        guard let limit = Int(request.parameter("limit") ?? "\(NodeAPI.defaultPage)"),
            (1...NodeAPI.largestPage).contains(limit)
        else {
            return .wrongParameter("limit", "must be a number from 1 to \(NodeAPI.largestPage)")
        }
        let found = await supervisor.tasks(filter, limit: limit + 1)
        let page = found.prefix(limit)
        let next = found.count > limit ? page.last.map { TaskCursor($0).text } : nil
        return .json(200, TasksView(tasks: page.map(TasksView.Task.init), next: next))
    }
}

extension HTTPResponse {
    static func wrongParameter(_ name: String, _ problem: String) -> HTTPResponse {
        var error = ErrorView("\(name) \(problem).")
        error.field = name
        return .error(400, error)
    }
}
