import Dispatch

/// A queue for work that may block (fsync, folder walks, name look-ups), off the event loop: one piece at a time, in
/// order. What waits in it is bounded by its callers, each of whom awaits its own piece.
package struct BlockingLane: Sendable {
    private let queue: DispatchQueue

    package init(_ name: String) { queue = DispatchQueue(label: "aidevops-worker." + name) }

    /// Runs `work` on the lane and comes back with its result.
    package func run<Result: Sendable, Failure: Error>(
        _ work: @escaping @Sendable () throws(Failure) -> Result
    ) async throws(Failure) -> Result {
        let result = await withCheckedContinuation { continuation in
            queue.async {
                continuation.resume(returning: Swift.Result<Result, Failure>(catching: work))
            }
        }
        return try result.get()
    }
}
