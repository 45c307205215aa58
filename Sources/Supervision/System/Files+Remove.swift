import Glibc

extension Files {
    /// Removes a file, or a folder with all that is in it; symbolic links are removed, never followed.
    ///
    /// However deep the folders are nested, it needs two descriptors and no recursion: what is deeper than one level is first
    /// moved up to the top.
    @available(*, noasync)
    package static func remove(_ path: String) throws(SystemError) {
        if unsafe unlink(path) == 0 || errno == ENOENT { return }
        guard errno == EISDIR || errno == EPERM else { throw SystemError("remove \(path)", errno: errno) }
        if unsafe rmdir(path) == 0 || errno == ENOENT { return }
        unsafe chmod(path, 0o700)
        let top = try openFolder(AT_FDCWD, path)
        var moved = 0
        while try !removeEntries(of: top.number, top: top.number, &moved, path) {}
        try checkErrno("remove \(path)") { unsafe rmdir(path) }
    }

    private static func openFolder(_ parent: Int32, _ name: String) throws(SystemError) -> Descriptor {
        Descriptor(
            owning: try checkErrno("open \(name)") {
                unsafe openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            })
    }

    /// Removes what is in a folder, or moves it to the top.
    /// - Returns: whether the folder was empty.
    private static func removeEntries(of folder: Int32, top: Int32, _ moved: inout Int, _ path: String)
        throws(SystemError) -> Bool
    {
        let names = try names(in: "/proc/self/fd/\(folder)")
        for name in names {
            if unsafe unlinkat(folder, name, 0) == 0 || errno == ENOENT { continue }
            guard errno == EISDIR || errno == EPERM else {
                throw SystemError("remove \(name) in \(path)", errno: errno)
            }
            // git's object folders, and what agents made read-only
            unsafe fchmodat(folder, name, 0o700, 0)
            if unsafe unlinkat(folder, name, AT_REMOVEDIR) == 0 { continue }
            if folder == top {
                let child = try openFolder(folder, name)
                _ = try removeEntries(of: child.number, top: top, &moved, path)
                try checkErrno("remove \(name) in \(path)") { unsafe unlinkat(folder, name, AT_REMOVEDIR) }
            } else {
                moved += 1
                try checkErrno("move \(name) in \(path)") {
                    unsafe renameat(folder, name, top, ".removed-\(getpid())-\(moved)")
                }
            }
        }
        return names.isEmpty
    }

    /// The longest path that is walked by name; below it a folder is held open instead, so that nothing is too deep.
    private static let longPath = 3000

    /// The bytes on disk of a folder and all below it, as du(1) counts them; hard links count each time.
    @available(*, noasync)
    package static func diskUse(_ path: String) -> Int {
        var total = 0
        var folders = [path]
        while let folder = folders.popLast() {
            if folder.utf8.count > longPath, let held = try? openFolder(AT_FDCWD, folder) {
                total += diskUse("/proc/self/fd/\(held.number)")
                continue
            }
            for name in (try? names(in: folder)) ?? [] {
                var info = stat()
                guard unsafe lstat(folder + "/" + name, &info) == 0 else { continue }
                total += Int(info.st_blocks) * 512
                if info.st_mode & S_IFMT == S_IFDIR { folders.append(folder + "/" + name) }
            }
        }
        return total
    }

    /// What the file system of a path has left for this user, and has in all, in bytes.
    @available(*, noasync)
    package static func diskSpace(_ path: String) throws(SystemError) -> (free: Int, total: Int) {
        var info = statvfs()
        try checkErrno("statvfs \(path)") { unsafe statvfs(path, &info) }
        return (Int(info.f_bavail) * Int(info.f_frsize), Int(info.f_blocks) * Int(info.f_frsize))
    }
}
