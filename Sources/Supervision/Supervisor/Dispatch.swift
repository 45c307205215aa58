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

    package init(repo: String, prompt: String) {
        self.repo = repo
        self.prompt = prompt
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
