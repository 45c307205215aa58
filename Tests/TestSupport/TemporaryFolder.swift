import Glibc
import Supervision

/// A folder of a test's own, removed with it.
package final class TemporaryFolder: Sendable {
    package let path: String

    package init(in parent: String = "/tmp") throws {
        var template = Array("\(parent)/aidevops-test.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw TestConnection.Failure(description: "mkdtemp: errno \(errno)") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? Files.remove(path) }

    package func write(_ name: String, _ text: String) throws {
        try Files.replace(path + "/" + name, with: Array(text.utf8))
    }
    package func read(_ name: String) throws -> String {
        String(decoding: try Files.read(path + "/" + name, limit: 64 << 20), as: UTF8.self)
    }
}
