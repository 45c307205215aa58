import CSystem
import Glibc

extension Command {
    /// What a program that ran to its end said.
    package struct Result: Sendable {
        package var status: ChildExit.Status
        package var output: [UInt8]
        package var errors: [UInt8]

        package var succeeded: Bool { status == .exited(0) }
        package var outputText: String { String(decoding: output, as: UTF8.self).trimmed }
        package var errorText: String { String(decoding: errors, as: UTF8.self).trimmed }
    }

    /// How much is kept of each output; what comes after is thrown away.
    private static let keptBytes = 64 << 20

    /// Runs the program to its end, blocking the caller. For the short-lived commands of the command line, which have no
    /// event loop; never on one.
    /// - Parameters:
    ///   - interrupt: a descriptor that ends the program when it becomes readable; -1: none.
    ///   - onOutput: gets its standard output as it comes, instead of the result.
    @available(*, noasync)
    package func run(input: [UInt8] = [], interrupt: Int32 = -1, onOutput: (([UInt8]) -> Void)? = nil)
        throws(SystemError) -> Result
    {
        let standardInput = try Descriptor.memoryFile("input", input)
        let output = try Pipe()
        let errors = try Pipe()
        let pid = try spawn(descriptors: [standardInput.number, output.writing.number, errors.writing.number])
        let process = Descriptor(owning: try check(cs_pidfd_open(pid), "pidfd_open"))
        // A pipe whose end was seen is -1, which poll(2) passes over.
        var pipes = [output.reading.number, errors.reading.number]
        for pipe in pipes { try check(cs_set_nonblocking(pipe), "fcntl") }
        output.writing.close()
        errors.writing.close()
        var collected: [[UInt8]] = [[], []]
        func drain(_ index: Int) {
            var chunk = [UInt8](repeating: 0, count: 64 * 1024)
            while pipes[index] >= 0 {
                let count = unsafe read(pipes[index], &chunk, chunk.count)
                if count < 0 { return }
                if count == 0 { pipes[index] = -1 }
                if index == 0, let onOutput {
                    onOutput(Array(chunk[..<count]))
                } else if collected[index].count < Command.keptBytes {
                    collected[index] += chunk[..<count]
                }
            }
        }
        var hasEnded = false
        while !hasEnded {
            // When the program is gone there's nothing to wait for, whoever holds its pipes.
            var ready: [Int32] = [0, 0, 0, 0]
            _ = unsafe cs_poll_readable(pipes + [process.number, interrupt], &ready, 4, -1)
            if ready[3] != 0 { _ = cs_kill(pid, SIGKILL) }
            for index in 0..<2 where ready[index] != 0 { drain(index) }
            hasEnded = ready[2] != 0
        }
        for index in 0..<2 { drain(index) }
        guard case .ended(let exit) = ChildExit.reap(pid) else { throw SystemError("wait4", errno: ECHILD) }
        return Result(status: exit.status, output: collected[0], errors: collected[1])
    }

    /// A program found on the PATH of this environment; nil when it isn't there.
    package init?(program: String, _ arguments: [String], environment: [String: String], directory: String? = nil) {
        guard let path = Files.findProgram(program, path: environment["PATH"] ?? Files.defaultSearchPath) else {
            return nil
        }
        self.init(
            path: path, arguments: [program] + arguments, environment: environment, directory: directory,
            newSession: false)
    }
}
