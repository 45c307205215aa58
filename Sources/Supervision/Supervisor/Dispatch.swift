/// What a client asks for, checked by the rules of `Names`.
package struct DispatchRequest: Sendable, Equatable {
    package var id: String?
    package var repo: String
    package var prompt: String
    package var model: String?
    package var branch: String?
    package var restart: RestartPolicy?
    package var continueTask: String?
    package var callbackURL: String?
    /// What a branch that isn't there starts from; nil: the remote's default branch.
    package var baseBranch: String?
    package var issue: IssueContext?

    package init(repo: String, prompt: String) {
        self.repo = repo
        self.prompt = prompt
    }
}

/// The issue that a task is for, and the claim under which it's worked on.
package struct IssueContext: Sendable, Equatable, Codable {
    package var number: Int
    package var title: String
    /// Whose claim it is.
    package var login: String
    package var leaseToken: String
    package var device: String
    package var attemptID: String

    package init(number: Int, title: String, login: String, leaseToken: String, device: String, attemptID: String) {
        self.number = number
        self.title = title
        self.login = login
        self.leaseToken = leaseToken
        self.device = device
        self.attemptID = attemptID
    }

    enum CodingKeys: String, CodingKey {
        case number, title, login, device
        case leaseToken = "lease_token"
        case attemptID = "attempt_id"
    }
}

package struct DispatchReceipt: Sendable, Equatable {
    package var id: String
    package var repo: String
    /// Nil while the task waits for a slot.
    package var pid: Int32?
    /// The place in the queue, from 1 on.
    package var position: Int?
}

/// Why a dispatch isn't taken. Nothing is kept of it.
package enum DispatchRefusal: Error, Sendable, Equatable {
    case repoNotAllowed(String)
    case callbackNotAllowed(String)
    case alreadyActive(id: String)
    case noSlot(active: Int, max: Int)
    case noMemory(active: Int, max: Int, availableMB: Int, neededMB: Int)
    case queueFull(active: Int, max: Int, limit: Int)
    case cannotContinue(String)
    case draining
    /// The task could not be stored or its process not be started.
    case unavailable(String)
}
