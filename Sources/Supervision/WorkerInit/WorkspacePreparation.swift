import CSystem
import Glibc

/// The git side of a worker: the shared cache of a remote, and the task's own worktree from it.
///
/// The cache is a bare mirror that only preparations write, one at a time (flock on `CACHE.lock`). A worktree has a git
/// folder of its own that borrows the cache's objects (alternates), so two tasks on one remote share the download and
/// nothing else. Objects are never pruned from the cache: worktrees may borrow them.
struct WorkspacePreparation {
    let order: WorkOrder
    let git: String
    /// Put on every git in a worktree that an agent had its hands on: its settings and attributes can name programs.
    let confinement: () throws(SystemError) -> Confinement?
    let tell: (WorkerReport) -> Void

    /// How often a held cache lock is tried again.
    private static let lockRetry = Duration.milliseconds(50)
    /// What an agent left may make git slow, or never end.
    private static let readTimeout = Duration.seconds(60)

    /// Brings the cache up to date and makes the worktree, on the branch that was asked for.
    func run(under supervisor: InitSupervisor) throws(InitFailure) {
        tell(.phase(.fetch))
        let lock = try lockCache(supervisor)
        try fetch(supervisor)
        let start = try startingPoint(supervisor)
        tell(.phase(.checkout))
        try checkOut(start, supervisor)
        lock.close()
        try tellHead(supervisor)
    }

    /// Goes on in the worktree of an earlier attempt, as it was left.
    func resume(under supervisor: InitSupervisor) throws(InitFailure) {
        tell(.phase(.checkout))
        guard Files.exists(order.worktree + "/.git") else {
            throw .step("the worktree of the earlier attempt is gone")
        }
        GitLeftovers.remove(from: order.worktree + "/.git")
        try tellHead(supervisor)
    }

    private func tellHead(_ supervisor: InitSupervisor) throws(InitFailure) {
        let head = try callInWorktree(["rev-parse", "--verify", "--quiet", "HEAD"], supervisor)
        let branch = try callInWorktree(["symbolic-ref", "--short", "--quiet", "HEAD"], supervisor)
        tell(.checkedOut(branch: branch.output.trimmed, base: head.output.trimmed))
    }

    /// What the new worktree starts from.
    enum StartingPoint {
        case branch(String)
        /// The branch is new, made from this one.
        case newBranch(from: String)
        case emptyRepository
    }

    private func lockCache(_ supervisor: InitSupervisor) throws(InitFailure) -> Descriptor {
        let path = order.cacheFolder + ".lock"
        let file: Descriptor
        do throws(SystemError) {
            file = Descriptor(
                owning: try checkErrno("open \(path)") { unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600) })
        } catch { throw .step(error.description) }
        let deadline = cs_monotonic_ns() + order.gitTimeout.nanoseconds
        var told = false
        while cs_lock_file(file.number) < 0 {
            if !told { tell(.note("waiting for another task's fetch of \(order.remoteURL)")) }
            told = true
            guard cs_monotonic_ns() < deadline else {
                throw .step("another fetch of \(order.remoteURL) held the cache too long", isTransient: true)
            }
            do throws(InitSupervisor.Stop) {
                try supervisor.pause(for: WorkspacePreparation.lockRetry)
            } catch { throw .stop(error) }
        }
        return file
    }

    private func fetch(_ supervisor: InitSupervisor) throws(InitFailure) {
        try makeCache(supervisor)
        try require(
            [
                "--git-dir", order.cacheFolder, "fetch", "--quiet", "--prune", "--force", "--no-write-fetch-head",
                "--", order.remoteURL, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*",
            ], supervisor)
    }

    /// Makes the cache where it isn't there; one that is there is whole, and free of what killed gits left in it.
    private func makeCache(_ supervisor: InitSupervisor) throws(InitFailure) {
        if Files.exists(order.cacheFolder) { return GitLeftovers.remove(from: order.cacheFolder) }
        let new = order.cacheFolder + ".new"
        do throws(SystemError) { try Files.remove(new) } catch { throw .step(error.description) }
        try require(["init", "--bare", "--quiet", new], supervisor)
        do throws(SystemError) {
            try checkErrno("rename \(new)") { unsafe rename(new, order.cacheFolder) }
        } catch { throw .step(error.description) }
    }

    private func startingPoint(_ supervisor: InitSupervisor) throws(InitFailure) -> StartingPoint {
        if try hasBranch(order.branch, supervisor) { return .branch(order.branch) }
        let branches = try branchNames(supervisor)
        if branches.isEmpty {
            tell(.note("the repository is empty: starting branch \(order.branch) in it"))
            return .emptyRepository
        }
        let base =
            order.branchWasNamed && branches.contains(order.baseBranch)
            ? order.baseBranch : try defaultBranch(among: branches, supervisor)
        guard order.branchWasNamed else {
            tell(.note("the repository has no branch \(order.branch): using its default branch \(base)"))
            return .branch(base)
        }
        tell(
            .note(
                "the repository has no branch \(order.branch): creating it from \(base == order.baseBranch ? "" : "its default branch ")\(base)"
            ))
        return .newBranch(from: base)
    }

    /// The branch that the remote's HEAD names now (the cache's own HEAD may be of another day), or the only one.
    private func defaultBranch(among branches: [String], _ supervisor: InitSupervisor) throws(InitFailure) -> String {
        let listing = try require(["ls-remote", "--symref", "--", order.remoteURL, "HEAD"], supervisor)
        let prefix = "ref: refs/heads/"
        if let reference = listing.output.split(separator: "\n").first(where: { $0.hasPrefix(prefix) }) {
            let name = String(reference.dropFirst(prefix.count).prefix { $0 != "\t" })
            if branches.contains(name) { return name }
        }
        guard branches.count == 1 else {
            throw .step(
                "\(order.remoteURL) has no branch \(order.branch) and its HEAD names no branch: dispatch with one of its branches"
            )
        }
        return branches[0]
    }

    private func checkOut(_ start: StartingPoint, _ supervisor: InitSupervisor) throws(InitFailure) {
        do throws(SystemError) { try Files.remove(order.worktree) } catch { throw .step(error.description) }
        switch start {
        case .branch(let branch), .newBranch(from: let branch):
            try require(
                ["clone", "--quiet", "--shared", "--branch", branch, "--", order.cacheFolder, order.worktree],
                supervisor)
            try require(["-C", order.worktree, "remote", "set-url", "origin", order.remoteURL], supervisor)
        case .emptyRepository:
            try require(["init", "--quiet", "--initial-branch", order.branch, "--", order.worktree], supervisor)
            try require(["-C", order.worktree, "remote", "add", "origin", order.remoteURL], supervisor)
        }
        if case .newBranch = start {
            try require(["-C", order.worktree, "checkout", "--quiet", "--no-track", "-b", order.branch], supervisor)
        }
    }

    private func hasBranch(_ name: String, _ supervisor: InitSupervisor) throws(InitFailure) -> Bool {
        let reference = "refs/heads/" + name
        return try call(["--git-dir", order.cacheFolder, "rev-parse", "--verify", "--quiet", reference], supervisor)
            .succeeded
    }

    private func branchNames(_ supervisor: InitSupervisor) throws(InitFailure) -> [String] {
        let format = "--format=%(refname:lstrip=2)"
        let listing = try require(["--git-dir", order.cacheFolder, "for-each-ref", format, "refs/heads"], supervisor)
        return listing.output.split(separator: "\n").map(String.init)
    }

    /// What the worktree holds now, against `base`; nil where git can't say.
    func summary(since base: String, under supervisor: InitSupervisor) -> WorkSummary? {
        func count(_ range: [String]) -> Int? {
            guard let result = try? callInWorktree(["rev-list", "--count"] + range, supervisor) else { return nil }
            return result.succeeded ? Int(result.output.trimmed) : nil
        }
        guard let status = try? callInWorktree(["status", "--porcelain"], supervisor), status.succeeded else {
            return nil
        }
        let branch = try? callInWorktree(["symbolic-ref", "--short", "--quiet", "HEAD"], supervisor)
        let since = base.isEmpty ? [] : ["^" + base]
        return WorkSummary(
            commits: count(["--branches", "HEAD"] + since) ?? count(["--branches"] + since) ?? 0,
            unpushedCommits: count(["--branches", "HEAD", "--not", "--remotes"])
                ?? count(["--branches", "--not", "--remotes"]) ?? 0,
            hasUncommittedChanges: !status.output.isEmpty, branch: branch?.output.trimmed ?? "")
    }
}

// MARK: - Running git

extension WorkspacePreparation {
    /// Git without prompts, without anything that a repository or an earlier agent could make it run, and with the
    /// server's own settings on top.
    private var options: [String] {
        [
            "gc.auto=0", "maintenance.auto=false", "core.hooksPath=/dev/null", "core.fsmonitor=false",
            "protocol.ext.allow=never", "advice.detachedHead=false", "http.lowSpeedLimit=1000", "http.lowSpeedTime=60",
            "init.templateDir=",
        ] + order.gitOptions
    }

    @discardableResult
    private func require(_ arguments: [String], _ supervisor: InitSupervisor) throws(InitFailure)
        -> InitCommand.Result
    {
        let result = try call(arguments, supervisor)
        guard !result.succeeded else { return result }
        let verb = arguments.first {
            ["init", "fetch", "ls-remote", "for-each-ref", "clone", "checkout", "remote"].contains($0)
        }
        throw .step(
            "git \(verb ?? arguments[0]) of \(order.remoteURL) failed: \(GitMessage.essence(result.errors))",
            isTransient: GitMessage.isTransient(result.errors))
    }

    /// Reads a worktree, under the agent's own confinement.
    func callInWorktree(
        _ arguments: [String], _ supervisor: InitSupervisor, outputLimit: Int? = nil
    ) throws(InitFailure) -> InitCommand.Result {
        let confinement: Confinement?
        do throws(SystemError) { confinement = try self.confinement() } catch { throw .step(error.description) }
        return try call(
            ["-C", order.worktree] + arguments, supervisor, timeout: WorkspacePreparation.readTimeout,
            confinement: confinement, outputLimit: outputLimit)
    }

    private func call(
        _ arguments: [String], _ supervisor: InitSupervisor, timeout: Duration? = nil, confinement: Confinement? = nil,
        outputLimit: Int? = nil
    ) throws(InitFailure) -> InitCommand.Result {
        var environment = order.environment
        environment["GIT_CONFIG_GLOBAL"] = "/dev/null"
        environment["GIT_TERMINAL_PROMPT"] = "0"
        let command = InitCommand(
            path: git, arguments: ["git"] + options.flatMap { ["-c", $0] } + arguments, environment: environment,
            timeout: timeout ?? order.gitTimeout, confinement: confinement, outputLimit: outputLimit)
        let result: InitCommand.Result
        do throws(InitFailure) {
            result = try command.run(under: supervisor)
        } catch .stop(.timedOut) {
            throw .step("git took longer than \(command.timeout)", isTransient: true)
        } catch { throw error }
        for line in result.errors.split(separator: "\n") { tell(.note("git: " + line)) }
        return result
    }
}

/// Reads git's own words.
enum GitMessage {
    /// The lines that say what went wrong, in one, at most 600 bytes.
    static func essence(_ errors: String) -> String {
        let lines = errors.split(separator: "\n")
        let telling = lines.filter { $0.hasPrefix("fatal:") || $0.hasPrefix("error:") || $0.hasPrefix("remote:") }
        let words = (telling.isEmpty ? lines[...] : telling[...]).suffix(4).joined(separator: "; ")
        return words.isEmpty ? "git gave no reason" : String(decoding: words.utf8.prefix(600), as: UTF8.self)
    }

    /// Whether the network, not the request, was at fault.
    static func isTransient(_ errors: String) -> Bool {
        let signs = [
            "Could not resolve host", "Couldn't connect", "Failed to connect", "Connection refused", "Connection reset",
            "Connection timed out", "Operation timed out", "Network is unreachable", "early EOF",
            "The remote end hung up",
            "Operation too slow", "RPC failed", "TLS connection was non-properly terminated", "GnuTLS recv error",
            "The requested URL returned error: 429", "The requested URL returned error: 5",
        ]
        return signs.contains { errors.contains($0) }
    }
}

extension String {
    /// Without white space at both ends.
    package var trimmed: String {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace })
        else { return "" }
        return String(self[first...last])
    }
}
