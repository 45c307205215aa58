import CSystem
import Glibc

/// Why what a task changed can't be told.
package enum ChangesRefusal: Error, Sendable, Equatable {
    case unknownTask
    /// Its worktree isn't there yet, or any more.
    case noWorktree(String)
    case busy
    case failed(String)
}

extension Supervisor {
    /// How many worktrees are read at once.
    private static let maxReaders = 4
    private static let readTimeout = Duration.seconds(60)

    /// What a task has changed in its worktree so far, without secrets.
    package func changes(of id: String) async throws(ChangesRefusal) -> WorkChanges {
        guard let record = await record(of: id) else { throw .unknownTask }
        guard record.base != nil else { throw .noWorktree("the task has no worktree yet") }
        let order = changesOrder(for: record)
        let worktree = order.worktree + "/.git"
        guard await services.files.run({ Files.exists(worktree) }) else {
            throw .noWorktree("the task's worktree is gone (see retention.worktree_hours)")
        }
        guard changeReaders < Supervisor.maxReaders else { throw .busy }
        changeReaders += 1
        defer { changeReaders -= 1 }
        let result: Command.Result
        do throws(SystemError) { result = try await readChanges(order) } catch { throw .failed(error.description) }
        guard result.succeeded, var changes = WorkChanges(answer: result.output) else {
            throw .failed("git could not read the worktree (\(result.status))")
        }
        changes.base = record.base ?? ""
        return changes.redacted(by: SecretSet(settings.secrets))
    }

    private func changesOrder(for record: TaskRecord) -> WorkOrder {
        let surroundings = WorkerSurroundings(paths: paths, settings: settings, environment: environment)
        var order = WorkOrder(for: record, mode: .fresh, in: surroundings)
        order.prompt = ""
        order.environment = order.environment.filter { ["PATH", "HOME", "TMPDIR", "LANG"].contains($0.key) }
        // The agent may be writing the index.
        order.environment["GIT_OPTIONAL_LOCKS"] = "0"
        return order
    }

    private func readChanges(_ order: WorkOrder) async throws(SystemError) -> Command.Result {
        let liveness = try Pipe()
        let command = Command(
            path: services.executable, arguments: ["aidevops-worker", ChangesReader.argument], environment: [:],
            directory: "/")
        let result = try await services.reaper.run(
            command, input: order.encoded(), further: [liveness.reading.number],
            outputLimit: WorkChanges.maxAnswerBytes, timeout: Supervisor.readTimeout)
        liveness.writing.close()
        return result
    }
}

extension WorkChanges {
    func redacted(by secrets: SecretSet) -> WorkChanges {
        func clean(_ text: String) -> String {
            var redactor = Redactor(secrets)
            return String(decoding: redactor.redact(Array(text.utf8)) + redactor.flush(), as: UTF8.self)
        }
        var changes = self
        changes.branch = clean(branch)
        changes.diff = clean(diff)
        changes.untracked = untracked.map(clean)
        for index in commits.indices {
            changes.commits[index].subject = clean(commits[index].subject)
            changes.commits[index].author = clean(commits[index].author)
        }
        for index in files.indices { changes.files[index].path = clean(files[index].path) }
        return changes
    }
}
