import CSystem
import Glibc

/// What an agent has changed so far: read by a process of its own under the agent's confinement, since the worktree's git
/// settings are the agent's.
package struct WorkChanges: Sendable, Equatable {
    package struct Commit: Sendable, Equatable, Codable {
        package var id: String
        package var author: String
        /// ISO 8601.
        package var date: String
        package var subject: String
    }

    package struct File: Sendable, Equatable, Codable {
        package var path: String
        /// Lines; nil for a binary file.
        package var added: Int?
        package var deleted: Int?
    }

    package var branch = ""
    package var base = ""
    /// Of all branches, the newest first.
    package var commits: [Commit] = []
    /// Against the base, committed or not.
    package var files: [File] = []
    /// New files that git doesn't know yet.
    package var untracked: [String] = []
    /// Unified, against the base.
    package var diff = ""
    /// Whether the diff or a list is only a part.
    package var isTruncated = false

    package static let maxCommits = 200
    package static let maxDiffBytes = 512 << 10
    static let maxListBytes = 256 << 10
    static let maxAnswerBytes = maxDiffBytes + 5 * maxListBytes
}

/// The `worker-changes` mode. Its descriptors: 0 the work order, 1 the answer, 2 errors, 3 the liveness pipe.
package enum ChangesReader {
    package static let argument = "worker-changes"
    private static let liveness: Int32 = 3

    /// - Returns: the exit code; with 0 the answer is whole.
    @available(*, noasync)
    package static func main() -> Int32 {
        cs_ignore_sigpipe()
        guard cs_set_cloexec(liveness) >= 0, let bytes = try? Files.read("/proc/self/fd/0", limit: 4 << 20),
            let order = WorkOrder(encoded: bytes),
            let supervisor = try? InitSupervisor(liveness: Descriptor(owning: liveness))
        else { return 125 }
        let code = answer(order, supervisor)
        supervisor.endTree(grace: .zero)
        return code
    }

    private static func answer(_ order: WorkOrder, _ supervisor: InitSupervisor) -> Int32 {
        let sandbox = Sandbox(order)
        guard (try? sandbox.enter()) != nil,
            let git = Files.findProgram("git", path: order.environment["PATH"] ?? "")
        else { return 1 }
        let workspace = WorkspacePreparation(
            order: order, git: git,
            confinement: { () throws(SystemError) in try sandbox.agentConfinement() }, tell: { _ in })
        let output = Descriptor(owning: STDOUT_FILENO)
        do throws(InitFailure) {
            for (section, arguments, limit) in questions(base: order.base) {
                let result = try workspace.callInWorktree(arguments, supervisor, outputLimit: limit)
                guard result.succeeded || section == "branch" else { return 1 }
                try? output.writeAll(encoded(section, result))
            }
            return 0
        } catch { return 1 }
    }

    /// External programs that the worktree's settings name aren't run for it: their output isn't git's.
    private static func questions(base: String) -> [(section: String, arguments: [String], limit: Int)] {
        // In a repository that was empty all is new; this is the empty tree of git.
        let from = base.isEmpty ? "4b825dc642cb6eb9a060e54bf8d69288fbee4904" : base
        let plain = ["--no-ext-diff", "--no-textconv", "--no-color"]
        let range = base.isEmpty ? [] : ["^" + base]
        return [
            ("branch", ["symbolic-ref", "--short", "--quiet", "HEAD"], WorkChanges.maxListBytes),
            (
                "commits",
                ["log", "-z", "--max-count=\(WorkChanges.maxCommits)", "--format=%H%x01%an%x01%aI%x01%s", "--branches"]
                    + range,
                WorkChanges.maxListBytes
            ),
            ("files", ["diff", "--numstat", "-z", "--no-renames"] + plain + [from], WorkChanges.maxListBytes),
            ("untracked", ["ls-files", "--others", "--exclude-standard", "-z"], WorkChanges.maxListBytes),
            ("diff", ["diff"] + plain + [from], WorkChanges.maxDiffBytes),
        ]
    }

    private static func encoded(_ section: String, _ result: InitCommand.Result) -> [UInt8] {
        let body = Array(result.output.utf8)
        return Array("\(section) \(body.count) \(result.isTruncated ? 1 : 0)\n".utf8) + body
    }
}

extension WorkChanges {
    /// Reads the answer of the mode; nil when it isn't whole.
    package init?(answer bytes: [UInt8]) {
        var rest = bytes[...]
        var sections: [String: String] = [:]
        var cut: Set<String> = []
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            let head = String(decoding: rest[..<end], as: UTF8.self).split(separator: " ")
            guard head.count == 3, let count = Int(head[1]), count >= 0, rest.endIndex - end - 1 >= count else {
                return nil
            }
            sections[String(head[0])] = String(decoding: rest[(end + 1)..<(end + 1 + count)], as: UTF8.self)
            if head[2] == "1" { cut.insert(String(head[0])) }
            rest = rest[(end + 1 + count)...]
        }
        guard let diff = sections["diff"] else { return nil }
        self.diff = diff
        isTruncated = !cut.isEmpty
        branch = (sections["branch"] ?? "").trimmed
        // The last entry of a list that was cut is only a part.
        func list(_ name: String) -> ArraySlice<Substring> {
            (sections[name] ?? "").split(separator: "\0").dropLast(cut.contains(name) ? 1 : 0)
        }
        commits = list("commits").compactMap { entry in
            let parts = entry.split(separator: "\u{1}", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
            return parts.count == 4 ? Commit(id: parts[0], author: parts[1], date: parts[2], subject: parts[3]) : nil
        }
        files = list("files").compactMap { entry in
            let parts = entry.split(separator: "\t", maxSplits: 2, omittingEmptySubsequences: false)
            return parts.count == 3
                ? File(path: String(parts[2]), added: Int(parts[0]), deleted: Int(parts[1])) : nil
        }
        untracked = list("untracked").map(String.init)
    }
}
