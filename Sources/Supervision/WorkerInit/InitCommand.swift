import CSystem
import Glibc

/// Why the init ends before its agent has done its work.
enum InitFailure: Error {
    case stop(InitSupervisor.Stop)
    /// A step didn't work; with the sentence for people.
    case step(String, isTransient: Bool = false)
}

/// One program that the init runs to its end and reads the output of: git, and the agent's version probe.
struct InitCommand {
    var path: String
    var arguments: [String]
    var environment: [String: String]
    var directory: String?
    var timeout: Duration
    /// On top of the init's own.
    var confinement: Confinement?

    struct Result {
        var status: ChildExit.Status
        var output: String
        var errors: String
        var succeeded: Bool { status == .exited(0) }
    }

    /// How much of each output is kept, the newest.
    private static let keptBytes = 64 * 1024

    /// Runs it. When the init is told to stop meanwhile, the program is left to `endTree`.
    func run(under supervisor: InitSupervisor) throws(InitFailure) -> Result {
        let output: OutputTail
        let errors: OutputTail
        let pid: Int32
        do throws(SystemError) {
            output = try OutputTail(keeping: InitCommand.keptBytes)
            errors = try OutputTail(keeping: InitCommand.keptBytes)
            let null = Descriptor(
                owning: try checkErrno("open /dev/null") { unsafe open("/dev/null", O_RDONLY | O_CLOEXEC) })
            let command = Command(
                path: path, arguments: arguments, environment: environment, directory: directory,
                confinement: confinement)
            pid = try command.spawn(descriptors: [null.number, output.writingEnd, errors.writingEnd])
        } catch { throw .step(error.description) }
        output.closeWritingEnd()
        errors.closeWritingEnd()
        let tails = [output, errors]
        do throws(InitSupervisor.Stop) {
            let exit = try supervisor.wait(
                for: pid, deadline: cs_monotonic_ns() + timeout.nanoseconds, outputs: tails.map(\.readingEnd),
                drain: { tails[$0].drain() })
            // What is in the pipes now is all that counts: a grandchild may hold them open for ever.
            tails.forEach { $0.drain() }
            return Result(status: exit.status, output: output.text, errors: errors.text)
        } catch { throw .stop(error) }
    }
}

/// The reading side of a child's output: keeps the newest bytes, and drains what it doesn't keep.
private final class OutputTail {
    private let limit: Int
    private let reading: Descriptor
    private(set) var writingEnd: Int32
    private var bytes: [UInt8] = []
    private var ended = false

    init(keeping limit: Int) throws(SystemError) {
        let pipe = try Pipe()
        try pipe.reading.setNonBlocking()
        self.limit = limit
        reading = pipe.reading
        writingEnd = pipe.writing.release()
    }

    /// -1, which poll(2) passes over, once the end was seen.
    var readingEnd: Int32 { ended ? -1 : reading.number }

    deinit { closeWritingEnd() }

    func closeWritingEnd() {
        if writingEnd >= 0 { close(writingEnd) }
        writingEnd = -1
    }

    var text: String { String(decoding: bytes.suffix(limit), as: UTF8.self) }

    func drain() {
        var chunk = [UInt8](repeating: 0, count: 16 * 1024)
        while !ended {
            let result = unsafe chunk.withUnsafeMutableBytes { unsafe reading.read(into: $0) }
            switch result {
            case .bytes(let count):
                bytes.append(contentsOf: chunk[..<count])
                if bytes.count > 2 * limit { bytes.removeFirst(bytes.count - limit) }
            case .wouldBlock: return
            case .end, .failed: ended = true
            }
        }
    }
}
