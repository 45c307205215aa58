import CSystem
import Glibc

/// One run of a worker's process: its pipes on the event loop, and its end.
///
/// The exit comes from the reaper alone; the end of a pipe means nothing, since what the agent left behind may hold it.
/// Lives on the event loop.
final class WorkerProcess {
    /// What is still read from a pipe after the exit.
    private static let lastDrainBytes = 4 << 20
    /// How much longer than its own grace period and KILL rounds an init may take before it's killed from outside.
    private static let patience = Duration.seconds(12)

    struct Handlers {
        var output: ([UInt8], TaskLog.Source) -> Void
        var report: (WorkerReport) -> Void
        var exit: (ChildExit) -> Void
    }

    private final class Input {
        let pipe: Descriptor
        let take: ([UInt8]) -> Void
        var registration: EventLoop.Registration?

        init(_ pipe: consuming Descriptor, take: @escaping ([UInt8]) -> Void) {
            self.pipe = pipe
            self.take = take
        }
    }

    private(set) var pid: Int32 = -1
    private let loop: EventLoop
    private let reaper: Reaper
    private let handlers: Handlers
    private var inputs: [Input] = []
    private var reportLine: [UInt8] = []
    /// Held open for as long as the worker may live: its end of file tells the worker that the server is gone.
    private var liveness: Descriptor?
    private var killTimer: EventLoop.TimerToken?
    private let group: ControlGroup?

    /// Starts `worker-init` with its order.
    /// - Throws: what kept it from starting; then nothing is left of it.
    init(
        order: WorkOrder, executable: String, group: ControlGroup?, on loop: EventLoop, reaper: Reaper,
        handlers: Handlers
    ) throws(SystemError) {
        self.group = group
        self.loop = loop
        self.reaper = reaper
        self.handlers = handlers
        let orderFile = try Descriptor.memoryFile("work-order", order.encoded())
        let output = try Pipe()
        let errors = try Pipe()
        let report = try Pipe()
        let alive = try Pipe()
        let writingEnds = [
            orderFile.number, output.writing.number, errors.writing.number, report.writing.number, alive.reading.number,
        ]
        let command = Command(
            path: executable, arguments: ["aidevops-worker", WorkerInit.argument], environment: [:], directory: "/",
            niceIncrement: order.sandbox.initNiceIncrement)
        liveness = .some(alive.writing)
        inputs = [
            Input(output.reading) { [unowned self] in self.handlers.output($0, .output) },
            Input(errors.reading) { [unowned self] in self.handlers.output($0, .errors) },
            Input(report.reading) { [unowned self] in readReport($0) },
        ]
        do throws(SystemError) {
            for input in inputs {
                try input.pipe.setNonBlocking()
                input.registration = try loop.add(input.pipe.number, .read) { [unowned self, unowned input] _ in
                    drain(input)
                }
            }
            let entry = try group?.entry() ?? Descriptor(owning: -1)
            pid = try reaper.spawn(command, descriptors: writingEnds, group: entry.number) { [self] in ended($0) }
        } catch {
            stopReading()
            group?.remove()
            throw error
        }
    }

    private func drain(_ input: Input) {
        switch loop.read(input.pipe) {
        case .bytes(let bytes): input.take(bytes)
        case .wouldBlock: break
        case .end, .failed: stopReading(input)
        }
    }

    private func stopReading(_ input: Input) {
        if let registration = input.registration { loop.remove(registration) }
        input.registration = nil
    }

    private func stopReading() {
        for input in inputs { stopReading(input) }
    }

    private func readReport(_ bytes: [UInt8]) {
        reportLine += bytes
        while let newline = reportLine.firstIndex(of: UInt8(ascii: "\n")) {
            let line = String(decoding: reportLine[..<newline], as: UTF8.self)
            reportLine.removeSubrange(...newline)
            if let report = WorkerReport(line: line) { handlers.report(report) }
        }
        if reportLine.count > WorkerReport.maxLineBytes { reportLine = [] }
    }

    private func ended(_ exit: ChildExit) {
        if let killTimer { loop.cancel(killTimer) }
        // An init that was killed left its tree to us.
        if exit.status != .exited(0) { reaper.endOrphans() }
        group?.remove()
        for input in inputs where input.registration != nil {
            var left = WorkerProcess.lastDrainBytes
            while left > 0, case .bytes(let bytes) = loop.read(input.pipe) {
                input.take(bytes)
                left -= bytes.count
            }
        }
        stopReading()
        inputs = []
        liveness = nil
        handlers.exit(exit)
    }

    /// Begins the cancel policy: TERM to the init, which ends its tree within `grace`; an init that doesn't is killed from
    /// outside with all its tree.
    func end(grace: Duration) {
        signalInit(SIGTERM)
        guard killTimer == nil else { return }
        killTimer = loop.schedule(after: grace + WorkerProcess.patience) { [weak self] in self?.killTree() }
    }

    /// Has the init kill its tree now, also in the grace period of an earlier `end`.
    func kill() {
        signalInit(SIGINT)
        if let killTimer { loop.cancel(killTimer) }
        killTimer = loop.schedule(after: WorkerProcess.patience) { [weak self] in self?.killTree() }
    }

    private func signalInit(_ signal: Int32) {
        guard reaper.isChild(pid) else { return }
        _ = cs_kill(pid, signal)
        _ = cs_kill(pid, SIGCONT)  // a process that was stopped takes its TERM only when it goes on
    }

    private func killTree() {
        guard reaper.isChild(pid) else { return }
        group?.kill()
        ProcessTree(root: pid).killOnce()
        _ = cs_kill(pid, SIGKILL)
    }
}
