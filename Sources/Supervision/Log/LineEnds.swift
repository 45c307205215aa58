import Glibc

/// Where the newlines of some bytes are, in order (memchr(3): the loops that see every byte must not be slow).
struct LineEnds: Sequence, IteratorProtocol {
    private let bytes: [UInt8]
    private var at = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func next() -> Int? {
        guard at < bytes.count else { return nil }
        let found = unsafe bytes.withUnsafeBytes { buffer -> Int? in
            guard let base = buffer.baseAddress,
                let newline = unsafe memchr(base + at, Int32(UInt8(ascii: "\n")), buffer.count - at)
            else { return nil }
            return unsafe UnsafeRawPointer(newline) - base
        }
        at = (found ?? bytes.count) + 1
        return found
    }
}
