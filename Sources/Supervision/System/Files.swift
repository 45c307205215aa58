import Glibc

/// Blocking file work in the forms that the product needs. On the loop, call these through a `BlockingLane`.
package enum Files {
    /// Reads a whole file of at most `limit` bytes.
    /// - Throws: `SystemError`, with `EFBIG` for a file that is longer than the limit.
    @available(*, noasync)
    package static func read(_ path: String, limit: Int) throws(SystemError) -> [UInt8] {
        let file = Descriptor(
            owning: try checkErrno("open \(path)") { unsafe open(path, O_RDONLY | O_CLOEXEC) })
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: min(64 * 1024, limit + 1))
        while true {
            let result = unsafe chunk.withUnsafeMutableBytes { unsafe file.read(into: $0) }
            switch result {
            case .bytes(let count):
                bytes.append(contentsOf: chunk[..<count])
                if bytes.count > limit { throw SystemError("read \(path)", errno: EFBIG) }
            case .end: return bytes
            case .wouldBlock: return bytes
            case .failed(let code): throw SystemError("read \(path)", errno: code)
            }
        }
    }

    /// Replaces a file so that a reader, a crash or a copy finds the old content or the new, never a part:
    /// a new file beside it, fsync, rename. The folder's own fsync is the caller's (`syncFolder`).
    @available(*, noasync)
    package static func replace(_ path: String, with bytes: [UInt8], mode: UInt32 = 0o600) throws(SystemError) {
        try Replacement(of: path, with: bytes, mode: mode).commit()
    }

    /// A file's new content, written beside it and not in its place yet.
    final class Replacement {
        private let path: String
        private let file: Descriptor
        private var isInPlace = false
        private var temporary: String { path + ".tmp" }

        @available(*, noasync)
        init(of path: String, with bytes: [UInt8], mode: UInt32 = 0o600) throws(SystemError) {
            self.path = path
            let temporary = path + ".tmp"
            unsafe unlink(temporary)
            let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW
            file = Descriptor(
                owning: try checkErrno("create \(temporary)") { unsafe open(temporary, flags, mode) })
            try file.writeAll(bytes)
        }

        deinit { if !isInPlace { unsafe unlink(temporary) } }

        /// Makes the content durable, and puts it in the file's place.
        @available(*, noasync)
        func commit() throws(SystemError) {
            try checkErrno("fsync \(temporary)") { fsync(file.number) }
            try checkErrno("rename \(path)") { unsafe rename(temporary, path) }
            isInPlace = true
        }
    }

    /// Makes the renames and removals in a folder durable.
    @available(*, noasync)
    package static func syncFolder(_ path: String) throws(SystemError) {
        let folder = Descriptor(
            owning: try checkErrno("open \(path)") { unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
        try checkErrno("fsync \(path)") { fsync(folder.number) }
    }

    /// Makes a folder and those above it, private to this user.
    @available(*, noasync)
    package static func makeFolders(_ path: String) throws(SystemError) {
        if unsafe mkdir(path, 0o700) == 0 { return }
        switch errno {
        case EEXIST: return
        case ENOENT:
            guard let parent = parent(of: path) else { throw SystemError("mkdir \(path)", errno: ENOENT) }
            try makeFolders(parent)
            try checkErrno("mkdir \(path)") { unsafe mkdir(path, 0o700) }
        case let code: throw SystemError("mkdir \(path)", errno: code)
        }
    }

    /// The names in a folder, without `.` and `..`, in no order.
    @available(*, noasync)
    package static func names(in path: String) throws(SystemError) -> [String] {
        guard let folder = unsafe opendir(path) else { throw SystemError("open \(path)", errno: errno) }
        defer { unsafe closedir(folder) }
        var names: [String] = []
        while let entry = unsafe readdir(folder) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    package static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    /// The path without symbolic links; nil when it isn't there.
    package static func realPath(_ path: String) -> String? {
        guard let resolved = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }

    package static func isSymbolicLink(_ path: String) -> Bool {
        var info = stat()
        return unsafe lstat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFLNK
    }

    package static func isExecutable(_ path: String) -> Bool {
        var info = stat()
        return unsafe stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }

    /// Where programs are looked for when no PATH is set.
    package static let defaultSearchPath = "/usr/local/bin:/usr/bin:/bin"

    /// Where a program is found, by the rules of execvp(3): a name with a slash is a path, else the first on `path`.
    package static func findProgram(_ name: String, path: String) -> String? {
        if name.utf8.contains(UInt8(ascii: "/")) { return isExecutable(name) ? name : nil }
        return path.split(separator: ":").lazy.map { "\($0)/\(name)" }.first(where: isExecutable)
    }

    /// The folder that a path is in; nil for a name alone and for what is at the root.
    package static func parent(of path: String) -> String? {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return nil }
        return String(path[..<slash])
    }
}
