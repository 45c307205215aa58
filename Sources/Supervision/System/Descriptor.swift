import CSystem
import Glibc

/// An owned file descriptor: it's closed when its owner lets go of it.
package struct Descriptor: ~Copyable, Sendable {
    package let number: Int32

    /// Takes over `number`, which nobody else may close from now on.
    package init(owning number: Int32) { self.number = number }

    deinit { Glibc.close(number) }

    /// Closes now; the same as letting go, said aloud.
    package consuming func close() {}

    /// Gives the number away unclosed.
    package consuming func release() -> Int32 {
        let number = self.number
        discard self
        return number
    }

    /// Makes reads and writes answer `EAGAIN` instead of waiting.
    package func setNonBlocking() throws(SystemError) {
        try check(cs_set_nonblocking(number), "fcntl")
    }

    /// What a read came to.
    package enum ReadResult: Equatable {
        case bytes(Int)
        case end
        case wouldBlock
        case failed(Int32)
    }

    /// Reads into `buffer`, as much as there is now.
    package func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        while true {
            let count = unsafe Glibc.read(number, buffer.baseAddress, buffer.count)
            if count > 0 { return .bytes(count) }
            if count == 0 { return .end }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            case let code: return .failed(code)
            }
        }
    }

    /// Writes all of `bytes` to a blocking descriptor.
    @available(*, noasync)
    package func writeAll(_ bytes: some Collection<UInt8>) throws(SystemError) {
        let failure = unsafe Array(bytes).withUnsafeBytes { buffer -> SystemError? in
            var written = 0
            while written < buffer.count {
                do throws(SystemError) {
                    written += try checkErrno("write") {
                        unsafe Glibc.write(
                            number, UnsafeRawBufferPointer(rebasing: buffer[written...]).baseAddress,
                            buffer.count - written)
                    }
                } catch { return error }
            }
            return nil
        }
        if let failure { throw failure }
    }
}

/// A pipe, both ends close-on-exec.
package struct Pipe: ~Copyable {
    package let reading: Descriptor
    package let writing: Descriptor

    package init() throws(SystemError) {
        var ends: (Int32, Int32) = (-1, -1)
        let result = unsafe withUnsafeMutableBytes(of: &ends) {
            unsafe cs_pipe($0.assumingMemoryBound(to: Int32.self).baseAddress)
        }
        try check(result, "pipe2")
        reading = Descriptor(owning: ends.0)
        writing = Descriptor(owning: ends.1)
    }

    /// Closes the writing end here, once a child has it, and leaves the reading one.
    package consuming func closeWriting() -> Descriptor { reading }
}

extension Descriptor {
    /// An anonymous file that holds `bytes`, its offset at the start (memfd_create(2)).
    package static func memoryFile(_ name: String, _ bytes: [UInt8]) throws(SystemError) -> Descriptor {
        let result = unsafe bytes.withUnsafeBytes {
            unsafe cs_memory_file(name, $0.baseAddress, Int64($0.count))
        }
        return Descriptor(owning: try check(result, "memfd_create"))
    }
}
