import CSystem
import Glibc

/// The init's own small kernel: it waits for its children, the stop signal and the server's end, all in one poll, and
/// ends the tree below it. Synchronous, single-threaded, no Foundation.
final class InitSupervisor {
    /// Why the work ends before it is done.
    enum Stop: Error, Equatable {
        case cancelled
        /// Told to end without any grace.
        case killed
        case serverGone
        case timedOut
    }

    /// What is left to the leftovers of an agent that ended by itself, and to all when the server has died.
    static let shortGrace = Duration.milliseconds(500)
    /// How long KILL is repeated before the rest is left to the server (a process in uninterruptible sleep).
    private static let killLimit = Duration.seconds(10)

    private let signals: Descriptor
    private let liveness: Descriptor
    private let tree = ProcessTree(root: getpid())
    /// Looks at the worker's use while there's waiting to do.
    var watch: ResourceWatch?
    /// Told once: from then on there is nobody to hear a stop from, and nothing more to hurry for.
    private var serverIsGone = false

    /// Becomes the subreaper and takes over TERM, INT, HUP and CHLD.
    init(liveness: consuming Descriptor) throws(SystemError) {
        try check(cs_become_subreaper(), "prctl(PR_SET_CHILD_SUBREAPER)")
        let watched = [SIGTERM, SIGINT, SIGHUP, SIGCHLD]
        signals = Descriptor(
            owning: try check(
                unsafe watched.withUnsafeBufferPointer {
                    unsafe cs_signal_descriptor($0.baseAddress, Int32($0.count))
                },
                "signalfd"))
        self.liveness = liveness
    }

    /// Waits for `pid` to end, reaping whatever else ends meanwhile, and hands each readable one of `outputs` to
    /// `drain`, by its index.
    func wait(for pid: Int32, deadline: Int64? = nil, outputs: [Int32] = [], drain: (Int) -> Void = { _ in })
        throws(Stop) -> ChildExit
    {
        while true {
            while case .ended(let exit) = ChildExit.reap() { if exit.pid == pid { return exit } }
            try pause(until: deadline, outputs: outputs, drain: drain)
        }
    }

    /// Waits for a stop for at most `duration`.
    func pause(for duration: Duration) throws(Stop) {
        let end = cs_monotonic_ns() + duration.nanoseconds
        while cs_monotonic_ns() < end {
            do { try pause(until: end, outputs: []) { _ in } } catch .timedOut { return } catch { throw error }
        }
    }

    private func pause(until deadline: Int64?, outputs: [Int32], drain: (Int) -> Void) throws(Stop) {
        if let due = watch?.due, due <= cs_monotonic_ns() { watch?.look() }
        var timeout: Int32 = -1
        let now = cs_monotonic_ns()
        if let deadline, deadline <= now { throw .timedOut }
        if let next = [deadline, watch?.due].compactMap({ $0 }).min() {
            timeout = Int32(min(max(0, next - now) / 1_000_000 + 1, 60_000))
        }
        // poll(2) passes over a negative descriptor.
        let watched = [signals.number, serverIsGone ? -1 : liveness.number] + outputs
        var ready = [Int32](repeating: 0, count: watched.count)
        _ = unsafe cs_poll_readable(watched, &ready, Int32(watched.count), timeout)
        for index in outputs.indices where ready[index + 2] != 0 { drain(index) }
        if ready[1] != 0 {
            serverIsGone = true
            throw .serverGone
        }
        while ready[0] != 0, case let signal = cs_read_signal(signals.number), signal > 0 {
            if signal == SIGTERM { throw .cancelled }
            if signal == SIGINT { throw .killed }
        }
    }

    /// Ends every process below: `first` to `leader`, TERM to all, and once `grace` is over KILL until nothing is left.
    /// INT, or the server's end meanwhile, cuts the grace short.
    func endTree(grace: Duration, leader: Int32? = nil, first: Int32 = 0) {
        let deadline = cs_monotonic_ns() + grace.nanoseconds
        var told: Set<Int32> = []
        var mayWait = true
        if let leader, first > 0 {
            _ = cs_kill(leader, first)
            mayWait = waitForTree(until: cs_monotonic_ns() + grace.nanoseconds / 4)
        }
        while mayWait, cs_monotonic_ns() < deadline {
            guard hasChildren() else { return }
            for pid in tree.descendants() where told.insert(pid).inserted {
                _ = cs_kill(pid, SIGTERM)
                _ = cs_kill(pid, SIGCONT)  // a stopped process gets its TERM only once it goes on
            }
            // What is started meanwhile is told too, at the next look.
            mayWait = waitForTree(until: min(deadline, cs_monotonic_ns() + 100_000_000))
        }
        killTree()
    }

    /// Waits until no child is left or the time is up; false when it's told to hurry.
    private func waitForTree(until deadline: Int64) -> Bool {
        while hasChildren() {
            do { try pause(until: deadline, outputs: []) { _ in } } catch {
                return error == .timedOut || error == .cancelled
            }
        }
        return true
    }

    private func killTree() {
        let limit = cs_monotonic_ns() + InitSupervisor.killLimit.nanoseconds
        var rounds = 0
        while hasChildren(), cs_monotonic_ns() < limit {
            tree.killOnce()
            rounds += 1
            // The first rounds go at full speed, to win against what keeps forking; then there's only dying to wait for.
            if rounds > 1000 { _ = poll(nil, 0, 1) }
        }
    }

    /// Reaps all that has ended; whether any child is left.
    private func hasChildren() -> Bool {
        while true {
            switch ChildExit.reap() {
            case .ended: continue
            case .stillRunning: return true
            case .noChildren: return false
            }
        }
    }
}
