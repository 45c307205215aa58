/// What a git that was killed leaves in a repository: lock files that would stop every later one, and half-written packs.
///
/// Only for repositories in which no git runs now: the cache under its lock, the worktree of a task without a process.
enum GitLeftovers {
    static func remove(from repository: String) {
        guard !Files.isSymbolicLink(repository) else { return }
        removeFiles(in: repository) { $0.hasSuffix(".lock") }
        removeFiles(in: repository + "/objects/pack") { $0.hasPrefix("tmp_") }
        var folders = [repository + "/refs"]
        while let folder = folders.popLast() {
            guard !Files.isSymbolicLink(folder) else { continue }
            removeFiles(in: folder) { $0.hasSuffix(".lock") }
            folders += ((try? Files.names(in: folder)) ?? []).map { folder + "/" + $0 }
        }
    }

    private static func removeFiles(in folder: String, where isLeftover: (String) -> Bool) {
        for name in (try? Files.names(in: folder)) ?? [] where isLeftover(name) {
            try? Files.remove(folder + "/" + name)
        }
    }
}
