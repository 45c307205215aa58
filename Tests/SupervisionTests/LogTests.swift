import TestSupport
import Testing

@testable import Supervision

@Suite struct LogBufferTests {
    private func text(_ lines: LogBuffer.Lines) -> String { String(decoding: lines.bytes, as: UTF8.self) }

    @Test func keepsTheNewestLinesAndTheirNumbers() {
        var buffer = LogBuffer(lineLimit: 3)
        buffer.append(Array("a\nb\n".utf8))
        buffer.append(Array("c\nd\ne\n".utf8))
        #expect(buffer.first == 3 && buffer.next == 6 && buffer.count == 3)
        #expect(text(buffer.last(2)) == "d\ne\n")
        #expect(text(buffer.last(10)) == "c\nd\ne\n")
        let behind = buffer.lines(after: 0)
        #expect(behind.missed == 2 && behind.first == 3 && text(behind) == "c\nd\ne\n")
        #expect(text(buffer.lines(after: 3, limit: 1)) == "d\n")
        let none = buffer.lines(after: 5)
        #expect(none.count == 0 && none.first == 6 && none.missed == 0)
        #expect(buffer.lines(after: 99).count == 0)
    }

    @Test func staysWithinItsBytesHoweverMuchComes() {
        var buffer = LogBuffer(byteLimit: 1000)
        let line = [UInt8](repeating: UInt8(ascii: "x"), count: 299) + [UInt8(ascii: "\n")]
        for _ in 0..<10_000 { buffer.append(line) }
        #expect(buffer.byteCount <= 1000 && buffer.count == 3 && buffer.next == 10_001)
        #expect(buffer.last(1).bytes == line)
        buffer.append([UInt8](repeating: UInt8(ascii: "y"), count: 5000) + [UInt8(ascii: "\n")])
        #expect(buffer.count == 1)  // one line is kept, however long
    }
}

@Suite struct RedactorTests {
    private static let secret = "ghp_Secret/Value+0123456789"

    private func redact(_ text: String, secrets: [String] = [secret], piece: Int = .max) -> String {
        var redactor = Redactor(SecretSet(secrets))
        var output: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            output += redactor.redact(Array(rest.prefix(piece)))
            rest = rest.dropFirst(piece)
        }
        return String(decoding: output + redactor.flush(), as: UTF8.self)
    }

    @Test(arguments: [Int.max, 1, 2, 5, 16])
    func replacesASecretHoweverItIsCut(piece: Int) {
        let text = "a \(Self.secret) b\(Self.secret)\(Self.secret)c"
        // Pieces of less than the held length may let a first few bytes out, never the rest.
        let output = redact(text, piece: piece)
        #expect(!output.contains("Secret/Value"))
        if piece >= 5 { #expect(redact("a \(Self.secret) b", piece: .max) == "a *** b") }
    }

    @Test func keepsLinesWhenASecretIsWrapped() {
        let middle = Self.secret.index(Self.secret.startIndex, offsetBy: 12)
        #expect(redact("x\(Self.secret[..<middle])\r\n\(Self.secret[middle...])y\n") == "x***\r\ny\n")
    }

    @Test func findsEncodedForms() {
        let forms = SecretSet.forms(of: Array(Self.secret.utf8)).map { String(decoding: $0, as: UTF8.self) }
        #expect(forms.contains("ghp_Secret%2FValue%2B0123456789") && forms.contains("ghp_Secret\\/Value+0123456789"))
        // What `base64` prints of "", "a" and "ab" before the secret.
        for encoded in [
            "Z2hwX1NlY3JldC9WYWx1ZSswMTIzNDU2Nzg5", "YWdocF9TZWNyZXQvVmFsdWUrMDEyMzQ1Njc4OQ==",
            "YWJnaHBfU2VjcmV0L1ZhbHVlKzAxMjM0NTY3ODk=",
        ] { #expect(redact(encoded).contains("***"), "\(encoded)") }
    }

    @Test func leavesEverythingElse() {
        let text = "ghp_Secret is not it, nor ghp_Secret/Value+012345678\n\nghp_\n"
        #expect(redact(text) == text)
        #expect(redact(text, secrets: []) == text)
        #expect(redact("a short one", secrets: ["short"]) == "a short one")
    }

    @Test func aLongerSecretRulesOverOneWithinIt() {
        #expect(redact("<abcdefgh-ijkl>", secrets: ["abcdefgh", "abcdefgh-ijkl"]) == "<***>")
        #expect(redact("<abcdefghijkl>", secrets: ["abcdefghi", "defghijkl"]) == "<***>")
    }

    @Test func aPrivateKeyIsFoundLineByLine() {
        let key = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0\nBAQEFAASCAUAwggE8AgEAAk\n-----END KEY-----"
        #expect(redact("only MIIBVgIBADANBgkqhkiG9w0 here", secrets: [key]) == "only *** here")
    }
}

@Suite struct LogFileTests {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test func rotatesAndReadsAcrossBothFiles() throws {
        let folder = try TemporaryFolder()
        let file = LogFile(path: folder.path + "/t.log", limit: 100)
        for number in 1...30 { #expect(file.append(bytes("line \(number)\n")).failure == nil) }
        #expect(Files.exists(file.olderPath))
        let (tail, count) = try file.lastLines(15, byteLimit: 1 << 20)
        #expect(count == 15)
        #expect(String(decoding: tail, as: UTF8.self) == (16...30).map { "line \($0)\n" }.joined())
        #expect(try file.lastLines(2, byteLimit: 1 << 20).bytes == bytes("line 29\nline 30\n"))
        #expect(try file.lastLines(0, byteLimit: 1 << 20).count == 0)
    }

    @Test func whatIsNotThereIsEmptyAndNoLinkIsFollowed() throws {
        let folder = try TemporaryFolder()
        let file = LogFile(path: folder.path + "/t.log", limit: 100)
        #expect(try file.lastLines(5, byteLimit: 100).count == 0)
        try folder.write("victim", "v")
        try TestEnvironment.run("ln", ["-s", folder.path + "/victim", file.path])
        #expect(file.append(bytes("x\n")).failure != nil)
        #expect(try folder.read("victim") == "v")
    }

    @Test func aLineThatTheByteLimitCutsIsLeftOut() throws {
        let folder = try TemporaryFolder()
        let file = LogFile(path: folder.path + "/t.log", limit: 1 << 30)
        let long = String(repeating: "x", count: 80_000)
        _ = file.append(bytes(long + "\n" + long + "\n"))
        #expect(try file.lastLines(10, byteLimit: 100_000).count == 1)
    }
}
