import Glibc

/// The log file of one task on disk: appended to in whole lines, moved aside to `PATH.1` when it reaches its limit.
///
/// It holds no descriptor between calls, so that a node with many tasks needs few, and a file that was moved or removed is
/// made anew. All calls block: they belong on the log lane, one at a time.
package struct LogFile: Sendable {
    package let path: String
    /// Bytes of the file before it's moved aside; the two together are at most twice as long.
    package let limit: Int

    package init(path: String, limit: Int) {
        self.path = path
        self.limit = limit
    }

    package var olderPath: String { path + ".1" }

    /// Appends `bytes`.
    /// - Returns: how many of them are in the file, and what went wrong with the rest.
    @available(*, noasync)
    package func append(_ bytes: [UInt8]) -> (written: Int, failure: SystemError?) {
        do throws(SystemError) {
            var file = try open()
            var info = stat()
            try checkErrno("fstat \(path)") { unsafe fstat(file.number, &info) }
            if info.st_size > 0 && Int(info.st_size) + bytes.count > limit {
                try checkErrno("rename \(path)") { unsafe rename(path, olderPath) }
                file = try open()
            }
            return write(bytes, to: file)
        } catch { return (0, error) }
    }

    private func open() throws(SystemError) -> Descriptor {
        let flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW
        return Descriptor(owning: try checkErrno("open \(path)") { unsafe Glibc.open(path, flags, 0o600) })
    }

    private func write(_ bytes: [UInt8], to file: borrowing Descriptor) -> (Int, SystemError?) {
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.write(
                    file.number, UnsafeRawBufferPointer(rebasing: $0[written...]).baseAddress, $0.count - written)
            }
            if count >= 0 {
                written += count
            } else if errno != EINTR {
                return (written, SystemError("write \(path)", errno: errno))
            }
        }
        return (written, nil)
    }

    /// Starts anew for another task of the same name: what was there is moved aside.
    @available(*, noasync)
    package func startOver() {
        unsafe rename(path, olderPath)
    }

    /// How many lines the file and the one that was moved aside hold.
    @available(*, noasync)
    package func countLines() -> UInt64 {
        var count: UInt64 = 0
        for path in [olderPath, path] {
            try? LogFile.scanBackwards(path) { chunk in
                count += UInt64(chunk.lazy.filter { $0 == UInt8(ascii: "\n") }.count)
                return true
            }
        }
        return count
    }

    /// The newest `limit` lines, whole, with their newlines, reading at most `byteLimit` bytes.
    @available(*, noasync)
    package func lastLines(_ limit: Int, byteLimit: Int) throws(SystemError) -> (bytes: [UInt8], count: Int) {
        guard limit > 0 else { return ([], 0) }
        var chunks: [[UInt8]] = []
        var newlines = 0
        var size = 0
        for path in [path, olderPath] {
            do throws(SystemError) {
                try LogFile.scanBackwards(path) { chunk in
                    chunks.append(chunk)
                    newlines += chunk.lazy.filter { $0 == UInt8(ascii: "\n") }.count
                    size += chunk.count
                    return newlines <= limit && size < byteLimit
                }
            } catch {
                if error.errno != ENOENT { throw error }
            }
            if newlines > limit || size >= byteLimit { break }
        }
        return LogFile.tail(Array(chunks.reversed().joined()), lines: limit, isCut: size >= byteLimit)
    }

    private static func tail(_ bytes: [UInt8], lines limit: Int, isCut: Bool) -> ([UInt8], Int) {
        var count = 0
        var at = bytes.count
        while at > 0 {
            if bytes[at - 1] == UInt8(ascii: "\n") || at == bytes.count {
                if count == limit { break }
                count += 1
            }
            at -= 1
        }
        // The line that the byte limit cut in two isn't a line.
        if at == 0, isCut, count > 1, let newline = bytes.firstIndex(of: UInt8(ascii: "\n")) {
            return (Array(bytes[(newline + 1)...]), count - 1)
        }
        return (Array(bytes[at...]), count)
    }

    private static func scanBackwards(_ path: String, _ body: ([UInt8]) -> Bool) throws(SystemError) {
        let file = Descriptor(
            owning: try checkErrno("open \(path)") { unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) })
        var end = Int(try checkErrno("lseek \(path)") { lseek(file.number, 0, SEEK_END) })
        while end > 0 {
            let length = min(end, 64 * 1024)
            var chunk = [UInt8](repeating: 0, count: length)
            let count = try checkErrno("read \(path)") {
                unsafe chunk.withUnsafeMutableBytes {
                    unsafe pread(file.number, $0.baseAddress, length, off_t(end - length))
                }
            }
            guard count == length, body(chunk) else { return }
            end -= length
        }
    }
}
