import FoundationEssentials
import Supervision

@testable import Server

/// One libFuzzer target for all that reads bytes from outside; the first byte chooses which. See Tests/Fuzz/run.sh.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let input = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    switch start[0] % 7 {
    case 0: fuzzParser(input, piece: input.count)
    case 1: fuzzParser(input, piece: max(1, Int(input[0]) % 7))
    case 2: _ = try? DispatchBody.parse(input)
    case 3: fuzzAgentEvents(input)
    case 4: fuzzRedactor(input)
    case 5: fuzzSmallForms(input)
    default: fuzzConfiguration(input)
    }
    return 0
}

/// However the bytes are cut, the parser must see the same requests.
private func fuzzParser(_ input: [UInt8], piece: Int) {
    func requests(_ piece: Int) -> [HTTPRequest] {
        var parser = RequestParser()
        var found: [HTTPRequest] = []
        var rest = input[...]
        while !rest.isEmpty {
            parser.append(Array(rest.prefix(piece)))
            rest = rest.dropFirst(piece)
            steps: while true {
                switch parser.next() {
                case .request(let request): found.append(request)
                case .awaitsContinue: continue
                case .needsMore: break steps
                case .failed: return found
                }
            }
        }
        return found
    }
    precondition(requests(max(1, piece)) == requests(max(1, input.count)), "pieces change what is read")
}

private func fuzzAgentEvents(_ input: [UInt8]) {
    for dialect in [AgentPreset.Dialect.opencode, .claude, .codex, .gemini, .plainText] {
        var evidence = AgentEvidence(dialect: dialect, repo: "o/r")
        evidence.read(lines: input + [UInt8(ascii: "\n")])
    }
}

private let secret = "ghp_0123456789abcdef"
private let secrets = SecretSet([secret])

/// A secret that is put anywhere is never let out whole, and all else stays.
private func fuzzRedactor(_ input: [UInt8]) {
    let place = Int(input[0]) % (input.count + 1)
    let text = Array(input[..<place]) + Array(secret.utf8) + Array(input[place...])
    var redactor = Redactor(secrets)
    var output: [UInt8] = []
    var rest = text[...]
    let piece = max(4, Int(input[input.count - 1]))
    while !rest.isEmpty {
        output += redactor.redact(Array(rest.prefix(piece)))
        rest = rest.dropFirst(piece)
    }
    output += redactor.flush()
    precondition(!String(decoding: output, as: UTF8.self).contains(secret), "a secret was let out")
}

/// What is taken keeps its bounds; the sources come from Main by the link Tests/Fuzz/Configuration.
private func fuzzConfiguration(_ input: [UInt8]) {
    guard let json = try? JSONDecoder().decode(JSONValue.self, from: Data(input)),
        let configuration = try? Configuration(json)
    else { return }
    precondition((1...1000).contains(configuration.node.maxConcurrent))
    precondition(configuration.authToken.isEmpty || configuration.authToken.utf8.count >= 16)
}

private func fuzzSmallForms(_ input: [UInt8]) {
    let text = String(decoding: input, as: UTF8.self)
    _ = try? TaskRecord(decoding: input)
    _ = WorkOrder(encoded: input)
    if let report = WorkerReport(line: text) { _ = report.line }
    _ = TaskCursor(text)
    if Names.problem(branch: text) == nil { precondition(!text.contains("..") && !text.hasPrefix("-")) }
    if Names.problem(repo: text) == nil { precondition(text.split(separator: "/").count == 2) }
    if Names.problem(taskID: text) == nil { precondition(!text.contains("/") && text != "..") }
    var buffer = LogBuffer(lineLimit: 5, byteLimit: 64)
    var total: UInt64 = 0
    for line in input.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
        buffer.append(Array(line) + [UInt8(ascii: "\n")])
        total += 1
        precondition(buffer.next == total + 1 && buffer.count <= 5 && buffer.lines(after: 0).count == buffer.count)
    }
}
