import FoundationEssentials

/// What the pulse asks and does.
extension GitHubClient {
    private struct Person: Decodable { var login: String }

    private struct IssueForm: Decodable {
        struct Label: Decodable { var name: String }
        struct Link: Decodable { var merged_at: String? }
        var number: Int
        var title: String
        var html_url: String
        var state: String
        var labels: [Label]
        var assignees: [Person]?
        var created_at: Date
        var pull_request: Link?

        var issue: Issue {
            Issue(
                number: number, title: GitHubClient.plain(title), url: GitHubClient.plain(html_url),
                labels: labels.map(\.name), assignees: (assignees ?? []).map(\.login), createdAt: created_at,
                isOpen: state == "open", isPullRequest: pull_request != nil)
        }
    }

    private struct CommentForm: Decodable {
        var id: Int
        var user: Person?
        var author_association: String
        var body: String?
        var created_at: Date

        var comment: IssueComment {
            IssueComment(
                id: id, author: user?.login ?? "", association: author_association, body: body ?? "",
                createdAt: created_at)
        }
    }

    /// Without control characters: it becomes an argument and a line of a log.
    private static func plain(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7f }).prefix(500))
    }

    private func path(_ repo: String, _ rest: String) -> String { "/repos/\(repo)/\(rest)" }

    private func encoded(_ value: [String: [String]]) -> [UInt8] {
        (try? JSONEncoder().encode(value)).map(Array.init) ?? []
    }

    package func login() async throws(GitHubFailure) -> String {
        try decode(try await call("GET", base + "/user"), Person.self).login
    }

    package func openIssues(of repo: String) async throws(GitHubFailure) -> [Issue] {
        try await list(path(repo, "issues?state=open&per_page=100"), of: IssueForm.self).map(\.issue)
    }

    package func issue(_ number: Int, of repo: String) async throws(GitHubFailure) -> Issue {
        try decode(try await call("GET", base + path(repo, "issues/\(number)")), IssueForm.self).issue
    }

    package func comments(on number: Int, of repo: String) async throws(GitHubFailure) -> [IssueComment] {
        try await list(path(repo, "issues/\(number)/comments?per_page=100"), of: CommentForm.self).map(\.comment)
            .sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
    }

    package func comment(_ body: String, on number: Int, of repo: String) async throws(GitHubFailure) -> IssueComment {
        let json = (try? JSONEncoder().encode(["body": body])).map(Array.init) ?? []
        return try decode(
            try await call("POST", base + path(repo, "issues/\(number)/comments"), body: json), CommentForm.self
        ).comment
    }

    package func deleteComment(_ id: Int, of repo: String) async throws(GitHubFailure) {
        try await forgiving { () async throws(GitHubFailure) in
            _ = try await call("DELETE", base + path(repo, "issues/comments/\(id)"))
        }
    }

    package func addLabels(_ labels: [String], to number: Int, of repo: String) async throws(GitHubFailure) {
        _ = try await call("POST", base + path(repo, "issues/\(number)/labels"), body: encoded(["labels": labels]))
    }

    package func removeLabel(_ label: String, from number: Int, of repo: String) async throws(GitHubFailure) {
        let name = label.percentEncoded
        try await forgiving { () async throws(GitHubFailure) in
            _ = try await call("DELETE", base + path(repo, "issues/\(number)/labels/\(name)"))
        }
    }

    package func assign(_ login: String, to number: Int, of repo: String) async throws(GitHubFailure) {
        _ = try await call(
            "POST", base + path(repo, "issues/\(number)/assignees"), body: encoded(["assignees": [login]]))
    }

    package func unassign(_ login: String, from number: Int, of repo: String) async throws(GitHubFailure) {
        _ = try await call(
            "DELETE", base + path(repo, "issues/\(number)/assignees"), body: encoded(["assignees": [login]]))
    }

    package func hasPullRequest(for number: Int, of repo: String) async throws(GitHubFailure) -> Bool {
        struct Event: Decodable {
            struct Source: Decodable { var issue: IssueForm? }
            var event: String?
            var source: Source?

            private enum CodingKeys: String, CodingKey { case event, source }

            // Events of other kinds have a source of other forms.
            init(from decoder: any Decoder) throws {
                let values = try decoder.container(keyedBy: CodingKeys.self)
                event = try? values.decode(String.self, forKey: .event)
                source = try? values.decode(Source.self, forKey: .source)
            }
        }
        return try await list(path(repo, "issues/\(number)/timeline?per_page=100"), of: Event.self).contains { event in
            guard event.event == "cross-referenced", let issue = event.source?.issue, let link = issue.pull_request,
                issue.html_url.contains("/\(repo)/")
            else { return false }
            return issue.state == "open" || link.merged_at != nil
        }
    }

    package func branches(beginning prefix: String, of repo: String) async throws(GitHubFailure) -> [String] {
        struct Reference: Decodable { var ref: String }
        return try await list(path(repo, "git/matching-refs/heads/\(prefix)"), of: Reference.self).map {
            String($0.ref.dropFirst("refs/heads/".count))
        }
    }

    /// What is gone needn't be removed.
    private func forgiving(_ work: () async throws(GitHubFailure) -> Void) async throws(GitHubFailure) {
        do throws(GitHubFailure) { try await work() } catch { if error.kind != .notFound { throw error } }
    }
}
