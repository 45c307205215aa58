import FoundationEssentials
import Supervision
import TestSupport
import Testing

/// What an agent has changed so far, as people see it while it works.
@Suite(.timeLimit(.minutes(5)))
struct ChangesTests {
    private struct Changes: Decodable {
        struct Commit: Decodable { var subject: String }
        struct File: Decodable, Equatable {
            var path: String
            var added: Int?
            var deleted: Int?
        }
        var branch: String
        var base: String
        var commits: [Commit]
        var files: [File]
        var untracked: [String]
        var diff: String
        var truncated: Bool
    }

    private func changes(_ node: TestNode, _ id: String) throws -> Changes {
        let answer = try node.request("GET", "/workers/\(id)/changes")
        #expect(answer.status == 200, "\(answer.body)")
        return try JSONDecoder().decode(Changes.self, from: Data(answer.body.utf8))
    }

    @Test func commitsAndChangesAreToldWhileTheAgentWorks() throws {
        let node = try TestNode(
            agent: """
                cat > /dev/null
                echo one > committed; git add committed; git commit -qm "First <b>step</b>"
                printf 'Seed\\nmore ghp_abcdefghijklmnop\\n' > README.md
                echo new > 'un tracked'
                head -c 100 /dev/zero > binary; git add binary
                # What the worktree's settings name isn't run outside, nor asked for the diff.
                printf '#!/bin/sh\\necho pwned\\n' > "$HOME/evil"; chmod +x "$HOME/evil"
                git config diff.external "$HOME/evil"; git config core.pager "$HOME/evil"
                git config diff.evil.textconv "$HOME/evil"; echo '* diff=evil' > .git/info/attributes
                echo ready; sleep 600
                """,
            settings: #""worker": {"cancel_grace_seconds": 1}, "retention": {"worktree_hours": 24}"#)
        node.environment["GH_TOKEN"] = "ghp_abcdefghijklmnop"
        try node.makeRepository("o/r")
        try node.start()
        #expect(try node.dispatch("work", more: #""branch": "fix/it""#).status == 202)
        #expect(try node.awaitLog("work", "ready"))
        let live = try changes(node, "work")
        #expect(live.branch == "fix/it" && live.base.count == 40 && !live.truncated)
        #expect(live.commits.map(\.subject) == ["First <b>step</b>"])
        #expect(live.files.contains(.init(path: "committed", added: 1, deleted: 0)))
        #expect(live.files.contains(.init(path: "README.md", added: 2, deleted: 1)))
        #expect(live.files.contains(.init(path: "binary")))
        #expect(live.untracked == ["un tracked"])
        #expect(live.diff.contains("+more ***") && !live.diff.contains("ghp_a") && !live.diff.contains("pwned"))
        #expect(try node.request("DELETE", "/workers/work").status == 200)
        _ = try node.followToEnd("work")
        #expect(try changes(node, "work").commits.count == 1)
        #expect(try node.request("GET", "/workers/nothing/changes").status == 404)
        #expect(try node.request("GET", "/workers/work/changes", authenticated: false).status == 401)
    }

    @Test func aLargeDiffIsCutAndAnEmptyRepositoryHasNoBase() throws {
        let node = try TestNode(
            agent: """
                cat > /dev/null
                seq 1 200000 > big; git add big; git commit -qm big; seq 1 5000 | while read n; do echo > "file-$n-with-a-name-that-is-long-enough-to-fill-the-list"; done
                echo TASK_COMPLETE
                """)
        let bare = node.repository("o/empty")
        try Files.makeFolders(Files.parent(of: bare) ?? "/")
        try TestEnvironment.run("git", ["init", "--quiet", "--bare", bare])
        try node.start()
        #expect(try node.dispatch("large", repo: "o/empty").status == 202)
        _ = try node.followToEnd("large")
        let changes = try changes(node, "large")
        #expect(changes.base == "" && changes.truncated && changes.files.first?.added == 200_000)
        #expect(changes.diff.utf8.count == WorkChanges.maxDiffBytes)
        #expect(changes.untracked.allSatisfy { $0.hasSuffix("list") } && changes.untracked.count > 1000)
    }

    @Test func aTaskWithoutAWorktreeSaysSo() throws {
        let node = try TestNode(agent: "cat > /dev/null; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.start()
        #expect(try node.dispatch("gone").status == 202)
        _ = try node.followToEnd("gone")
        try Files.remove(node.data + "/workspace/tasks/gone")
        let answer = try node.request("GET", "/workers/gone/changes")
        #expect(answer.status == 404 && answer.body.contains("worktree is gone"))
    }
}
