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
    /// Keeps so many bytes from the beginning of the output, rather than the newest.
    var outputLimit: Int?

    struct Result {
        var status: ChildExit.Status
        var output: String
        var errors: String
        /// Whether `output` is only a part.
        var isTruncated: Bool
        var succeeded: Bool { status == .exited(0) }
    }

    /// How much of each output is kept, the newest.
    private static let keptBytes = 64 * 1024

    /// Runs it. When the init is told to stop meanwhile, the program is left to `endTree`.
    func run(under supervisor: InitSupervisor) throws(InitFailure) -> Result {
        let output: OutputPart
        let errors: OutputPart
        let pid: Int32
        do throws(SystemError) {
            output = try OutputPart(
                keeping: outputLimit ?? InitCommand.keptBytes, end: outputLimit == nil ? .newest : .oldest)
            errors = try OutputPart(keeping: InitCommand.keptBytes, end: .newest)
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
            return Result(
                status: exit.status, output: output.text, errors: errors.text, isTruncated: output.isTruncated)
        } catch { throw .stop(error) }
    }
}

/// The reading side of a child's output: keeps a part of the bytes, and drains what it doesn't keep.
private final class OutputPart {
    enum End { case newest, oldest }

    private let limit: Int
    private let end: End
    private let reading: Descriptor
    private(set) var writingEnd: Int32
    private var bytes: [UInt8] = []
    private var ended = false
    private(set) var isTruncated = false

    init(keeping limit: Int, end: End) throws(SystemError) {
        let pipe = try Pipe()
        try pipe.reading.setNonBlocking()
        self.limit = limit
        self.end = end
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

    var text: String {
        String(decoding: end == .newest ? bytes.suffix(limit) : bytes.prefix(limit), as: UTF8.self)
    }

    func drain() {
        var chunk = [UInt8](repeating: 0, count: 16 * 1024)
        while !ended {
            let result = unsafe chunk.withUnsafeMutableBytes { unsafe reading.read(into: $0) }
            switch result {
            case .bytes(let count): take(chunk[..<count])
            case .wouldBlock: return
            case .end, .failed: ended = true
            }
        }
    }

    private func take(_ piece: ArraySlice<UInt8>) {
        if bytes.count + piece.count > limit { isTruncated = true }
        switch end {
        case .oldest: bytes.append(contentsOf: piece.prefix(max(0, limit - bytes.count)))
        case .newest:
            bytes.append(contentsOf: piece)
            if bytes.count > 2 * limit { bytes.removeFirst(bytes.count - limit) }
        }
    }
}
