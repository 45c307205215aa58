package import FoundationEssentials

/// An issue, as far as the pulse looks at it.
package struct Issue: Sendable, Equatable {
    package var number: Int
    package var title: String
    package var url: String
    package var labels: [String]
    package var assignees: [String]
    package var createdAt: Date
    package var isOpen: Bool
    package var isPullRequest: Bool

    package init(
        number: Int, title: String, url: String, labels: [String] = [], assignees: [String] = [], createdAt: Date,
        isOpen: Bool = true, isPullRequest: Bool = false
    ) {
        self.number = number
        self.title = title
        self.url = url
        self.labels = labels
        self.assignees = assignees
        self.createdAt = createdAt
        self.isOpen = isOpen
        self.isPullRequest = isPullRequest
    }
}

/// A comment on an issue.
package struct IssueComment: Sendable, Equatable {
    package var id: Int
    package var author: String
    /// GitHub's `author_association`.
    package var association: String
    package var body: String
    package var createdAt: Date

    package init(id: Int, author: String, association: String, body: String, createdAt: Date) {
        self.id = id
        self.author = author
        self.association = association
        self.body = body
        self.createdAt = createdAt
    }
}

/// Why GitHub gave no answer that can be used.
package struct GitHubFailure: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        case notFound
        /// The token isn't good, or not for this.
        case forbidden
        /// Nothing is asked before this moment.
        case limited(until: Date)
        case unreachable
        case other
    }

    package var kind: Kind
    package var description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}

/// What the pulse does on GitHub.
package protocol GitHub: Sendable {
    /// Whom the token belongs to.
    func login() async throws(GitHubFailure) -> String
    func openIssues(of repo: String) async throws(GitHubFailure) -> [Issue]
    func issue(_ number: Int, of repo: String) async throws(GitHubFailure) -> Issue
    /// All of them, the oldest first.
    func comments(on number: Int, of repo: String) async throws(GitHubFailure) -> [IssueComment]
    func comment(_ body: String, on number: Int, of repo: String) async throws(GitHubFailure) -> IssueComment
    func deleteComment(_ id: Int, of repo: String) async throws(GitHubFailure)
    func addLabels(_ labels: [String], to number: Int, of repo: String) async throws(GitHubFailure)
    /// A label that isn't there is no failure.
    func removeLabel(_ label: String, from number: Int, of repo: String) async throws(GitHubFailure)
    func assign(_ login: String, to number: Int, of repo: String) async throws(GitHubFailure)
    func unassign(_ login: String, from number: Int, of repo: String) async throws(GitHubFailure)
    /// Whether an open or merged pull request refers to it.
    func hasPullRequest(for number: Int, of repo: String) async throws(GitHubFailure) -> Bool
    /// The names of the branches that begin so.
    func branches(beginning prefix: String, of repo: String) async throws(GitHubFailure) -> [String]
    /// What is left of the rate limit, as it was last told.
    var budget: GitHubBudget { get async }
}

/// The rate limit of GitHub's REST API, as its answers tell it.
package struct GitHubBudget: Sendable, Equatable {
    package var limit: Int?
    package var remaining: Int?
    package var resetsAt: Date?
    package var requests = 0
    /// Answers that nothing has changed, which cost nothing.
    package var notModified = 0

    package init() {}
}
