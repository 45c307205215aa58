/// How many workers this machine can carry, by what its tasks have taken so far.
package struct CapacityAdvice: Sendable, Equatable {
    /// Ended tasks that it's drawn from, the newest.
    package var tasks: Int
    /// The peak that nine of ten stayed below.
    package var peakMemoryMB: Int
    package var maxConcurrent: Int

    /// Fewer tasks tell nothing.
    private static let leastTasks = 3
    static let mostTasks = 200
    /// The node itself, with room for floods of log.
    private static let ownMB = 64

    /// Nil while too little is known.
    package init?(peaksMB: [Int], totalMB: Int, reserveMB: Int) {
        guard peaksMB.count >= CapacityAdvice.leastTasks else { return nil }
        let sorted = peaksMB.sorted()
        tasks = sorted.count
        peakMemoryMB = max(1, sorted[min(sorted.count - 1, sorted.count * 9 / 10)])
        maxConcurrent = max(1, min(1000, (totalMB - reserveMB - CapacityAdvice.ownMB) / peakMemoryMB))
    }
}
