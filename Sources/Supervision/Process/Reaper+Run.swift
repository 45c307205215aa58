import CSystem
import Glibc

extension Reaper {
    /// Runs a program to its end without blocking the loop.
    /// - Parameters:
    ///   - further: the child's descriptors from 3 on.
    ///   - outputLimit: bytes that are kept of its output and of its errors, from the beginning.
    ///   - timeout: when it's killed, with all that it started.
    /// - Throws: what kept it from starting.
    package nonisolated(nonsending) func run(
        _ command: Command, input: [UInt8] = [], further: [Int32] = [], outputLimit: Int, timeout: Duration
    ) async throws(SystemError) -> Command.Result {
        let program = try RunningProgram(
            command, input: input, further: further, outputLimit: outputLimit, timeout: timeout, loop: loop,
            reaper: self)
        return await withCheckedContinuation { program.end = $0 }
    }
}

/// A program that the loop waits for. Lives on the loop.
private final class RunningProgram {
    private final class Output {
        let pipe: Descriptor
        var bytes: [UInt8] = []
        var registration: EventLoop.Registration?

        init(_ pipe: consuming Descriptor) { self.pipe = pipe }
    }

    /// What is still read from a pipe after the exit.
    private static let lastDrainBytes = 4 << 20

    var end: CheckedContinuation<Command.Result, Never>?
    private let loop: EventLoop
    private let reaper: Reaper
    private let outputLimit: Int
    private var outputs: [Output] = []
    private var pid: Int32 = -1
    private var timer: EventLoop.TimerToken?

    init(
        _ command: Command, input: [UInt8], further: [Int32], outputLimit: Int, timeout: Duration, loop: EventLoop,
        reaper: Reaper
    ) throws(SystemError) {
        self.loop = loop
        self.reaper = reaper
        self.outputLimit = outputLimit
        let inputFile = try Descriptor.memoryFile("input", input)
        let output = try Pipe()
        let errors = try Pipe()
        let descriptors = [inputFile.number, output.writing.number, errors.writing.number] + further
        outputs = [Output(output.reading), Output(errors.reading)]
        do throws(SystemError) {
            for output in outputs {
                try output.pipe.setNonBlocking()
                // The loop's handler keeps this alive until `finish` takes it off.
                output.registration = try loop.add(output.pipe.number, .read) { [self, unowned output] _ in
                    if !read(output) { stopReading(output) }
                }
            }
            pid = try reaper.spawn(command, descriptors: descriptors) { [self] in finish($0) }
        } catch {
            outputs.forEach(stopReading)
            throw error
        }
        timer = loop.schedule(after: timeout) { [weak self] in self?.kill() }
    }

    /// - Returns: whether there may be more.
    private func read(_ output: Output) -> Bool {
        switch loop.read(output.pipe) {
        case .bytes(let bytes):
            output.bytes += bytes.prefix(max(0, outputLimit - output.bytes.count))
            return true
        case .wouldBlock: return true
        case .end, .failed: return false
        }
    }

    private func stopReading(_ output: Output) {
        if let registration = output.registration { loop.remove(registration) }
        output.registration = nil
    }

    private func kill() {
        guard reaper.isChild(pid) else { return }
        ProcessTree(root: pid).killOnce()
        _ = cs_kill(-pid, SIGKILL)
    }

    private func finish(_ exit: ChildExit) {
        if let timer { loop.cancel(timer) }
        if exit.status != .exited(0) { reaper.endOrphans() }
        for output in outputs where output.registration != nil {
            var left = RunningProgram.lastDrainBytes
            while left > 0, case .bytes(let bytes) = loop.read(output.pipe) {
                output.bytes += bytes.prefix(max(0, outputLimit - output.bytes.count))
                left -= bytes.count
            }
            stopReading(output)
        }
        end?.resume(returning: Command.Result(status: exit.status, output: outputs[0].bytes, errors: outputs[1].bytes))
        end = nil
    }
}
