import CSystem

/// Parses HTTP/1.1 requests (RFC 9112) from bytes as they come, strictly: what two parsers could read differently is
/// refused. A pure value; each byte is looked at a bounded number of times.
package struct RequestParser: Sendable {
    package enum Step: Sendable, Equatable {
        case needsMore
        /// The client waits for `100 Continue` before it sends the body.
        case awaitsContinue
        case request(HTTPRequest)
        /// No further request can be read from this connection.
        case failed(HTTPFailure)
    }

    package enum Limits {
        package static let requestLineBytes = 8 * 1024
        package static let headBytes = 16 * 1024
        package static let headerCount = 100
        package static let bodyBytes = 1 << 20
        /// A chunk's size line with its extensions.
        package static let chunkLineBytes = 256
        /// All chunk lines and trailers of a body: bytes that carry nothing.
        package static let chunkOverheadBytes = 64 * 1024
    }

    private enum State: Sendable {
        case requestLine
        case headers(HTTPRequest)
        case fixedBody(HTTPRequest, remaining: Int)
        case chunkSize(HTTPRequest)
        case chunkData(HTTPRequest, remaining: Int)
        case chunkEnd(HTTPRequest)
        case trailers(HTTPRequest)
        case failed(HTTPFailure)
    }

    private var state = State.requestLine
    private var buffer: [UInt8] = []
    private var at = 0
    /// Up to here there is no line feed.
    private var scanned = 0
    private var headBytes = 0
    private var overheadBytes = 0
    private var sawEmptyLine = false

    package init() {}

    package mutating func append(_ bytes: [UInt8]) {
        if at == buffer.count {
            buffer = bytes
            (at, scanned) = (0, 0)
        } else {
            if at > 0 {
                buffer.removeFirst(at)
                (at, scanned) = (0, scanned - at)
            }
            buffer += bytes
        }
    }

    private var lastLine: [UInt8] = []
    private var lastRequest: HTTPRequest?
    private static let maxKeptLine = 256

    /// Whether a request has begun and isn't complete.
    package var isWithinRequest: Bool {
        if case .requestLine = state { return at < buffer.count }
        return true
    }

    package var isWithinBody: Bool {
        switch state {
        case .requestLine, .headers, .failed: false
        case .fixedBody, .chunkSize, .chunkData, .chunkEnd, .trailers: true
        }
    }

    /// Bytes that were read from the connection and not used yet.
    package var unusedBytes: Int { buffer.count - at }

    package mutating func next() -> Step {
        do throws(HTTPFailure) { return try advance() } catch {
            state = .failed(error)
            return .failed(error)
        }
    }

    private mutating func advance() throws(HTTPFailure) -> Step {
        while true {
            switch state {
            case .requestLine:
                try refuseGarbage()
                guard
                    let line = try takeLine(
                        limit: Limits.requestLineBytes, else: HTTPFailure(414, "The request line is too long."))
                else {
                    return .needsMore
                }
                if line.isEmpty && !sawEmptyLine {
                    sawEmptyLine = true  // RFC 9112, 2.2: one may be left over from an earlier body
                    continue
                }
                headBytes = line.count
                state = .headers(try request(of: line))
            case .headers(var request):
                let limit = Limits.headBytes - headBytes
                guard let line = try takeLine(limit: limit, else: HTTPFailure(431, "The request's head is too long."))
                else {
                    return .needsMore
                }
                headBytes += line.count + 2
                if line.isEmpty {
                    if let step = try finishHead(request) { return step }
                } else {
                    try RequestParser.headerLine(line, into: &request)
                    state = .headers(request)
                }
            case .fixedBody(var request, let remaining):
                let taken = take(remaining, into: &request)
                state = .fixedBody(request, remaining: remaining - taken)
                guard taken == remaining else { return .needsMore }
                return finish(request)
            case .chunkSize(let request):
                guard let line = try takeOverheadLine() else { return .needsMore }
                let size = try RequestParser.chunkSize(line)
                guard request.body.count + size <= Limits.bodyBytes else { throw RequestParser.tooLarge }
                state = size == 0 ? .trailers(request) : .chunkData(request, remaining: size)
            case .chunkData(var request, let remaining):
                let taken = take(remaining, into: &request)
                state = taken == remaining ? .chunkEnd(request) : .chunkData(request, remaining: remaining - taken)
                guard taken == remaining else { return .needsMore }
            case .chunkEnd(let request):
                guard let line = try takeOverheadLine() else { return .needsMore }
                guard line.isEmpty else { throw HTTPFailure(400, "A chunk is longer than its size says.") }
                state = .chunkSize(request)
            case .trailers(let request):
                guard let line = try takeOverheadLine() else { return .needsMore }
                if line.isEmpty { return finish(request) }
                var ignored = HTTPRequest(method: "", path: [])
                try RequestParser.headerLine(line, into: &ignored)
            case .failed(let failure): return .failed(failure)
            }
        }
    }

    /// What a request line says. Who keeps a connection mostly asks the same again: it's read once.
    private mutating func request(of line: ArraySlice<UInt8>) throws(HTTPFailure) -> HTTPRequest {
        if let lastRequest, lastLine.elementsEqual(line) { return lastRequest }
        let request = try RequestParser.requestLine(line)
        if line.count <= RequestParser.maxKeptLine { (lastLine, lastRequest) = (Array(line), request) }
        return request
    }

    private mutating func finish(_ request: HTTPRequest) -> Step {
        state = .requestLine
        (headBytes, overheadBytes, sawEmptyLine) = (0, 0, false)
        return .request(request)
    }

    /// Decides what follows the head; nil when it's a body that is simply read on.
    private mutating func finishHead(_ head: HTTPRequest) throws(HTTPFailure) -> Step? {
        var request = head
        try RequestParser.checkHost(request)
        request.keepsAlive =
            request.minorVersion == 1
            ? !request.headers.lists("connection", "close") : request.headers.lists("connection", "keep-alive")
        let expectation = request.headers["expect"]
        if let expectation, expectation.lowercased() != "100-continue" {
            throw HTTPFailure(417, "The only expectation that is met here is 100-continue.")
        }
        switch try RequestParser.framing(request) {
        case .none: return finish(request)
        case .fixed(let length):
            guard length <= Limits.bodyBytes else { throw RequestParser.tooLarge }
            if length == 0 { return finish(request) }
            state = .fixedBody(request, remaining: length)
        case .chunked: state = .chunkSize(request)
        }
        return expectation != nil && request.minorVersion == 1 && unusedBytes == 0 ? .awaitsContinue : nil
    }

    private static let tooLarge = HTTPFailure(413, "The body is larger than \(Limits.bodyBytes) bytes.")
}

// MARK: - Taking bytes

extension RequestParser {
    private mutating func take(_ wanted: Int, into request: inout HTTPRequest) -> Int {
        let count = min(wanted, buffer.count - at)
        request.body += buffer[at..<(at + count)]
        at += count
        scanned = max(scanned, at)
        return count
    }

    /// The next line without its CR LF, or nil when its end hasn't come.
    private mutating func takeLine(limit: Int, else failure: HTTPFailure) throws(HTTPFailure) -> ArraySlice<UInt8>? {
        let found = unsafe buffer.withUnsafeBytes { bytes -> Int in
            let from = max(scanned, at)
            guard from < bytes.count else { return -1 }
            var feed = UInt8(ascii: "\n")
            let offset = unsafe cs_find(
                UnsafeRawBufferPointer(rebasing: bytes[from...]).baseAddress, Int64(bytes.count - from), &feed, 1)
            return offset < 0 ? -1 : from + Int(offset)
        }
        scanned = buffer.count
        guard found >= 0 else {
            if buffer.count - at > limit { throw failure }
            return nil
        }
        guard found - at <= limit else { throw failure }
        guard found > at, buffer[found - 1] == UInt8(ascii: "\r") else {
            throw HTTPFailure(400, "A line ends with a line feed alone.")
        }
        let line = buffer[at..<(found - 1)]
        at = found + 1
        scanned = at
        guard line.allSatisfy({ $0 >= 0x20 && $0 != 0x7f || $0 == UInt8(ascii: "\t") }) else {
            throw HTTPFailure(400, "The request's head has a control character.")
        }
        return line
    }

    private mutating func takeOverheadLine() throws(HTTPFailure) -> ArraySlice<UInt8>? {
        let failure = HTTPFailure(400, "A chunk's size line or trailer is too long.")
        guard let line = try takeLine(limit: Limits.chunkLineBytes, else: failure) else { return nil }
        overheadBytes += line.count + 2
        guard overheadBytes <= Limits.chunkOverheadBytes else { throw failure }
        return line
    }

    /// Tells at once what can't become a request: a TLS hello, say, that has no line feed to wait for.
    private func refuseGarbage() throws(HTTPFailure) {
        guard at < buffer.count else { return }
        let method = buffer[at...].prefix {
            $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n")
        }
        guard method.count <= RequestParser.maxMethodBytes, method.allSatisfy(RequestParser.isTokenByte) else {
            throw HTTPFailure(400, "This isn't an HTTP/1.1 request.")
        }
    }

    private static let maxMethodBytes = 32

    /// RFC 9110, 5.6.2.
    static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}

// MARK: - Lines

extension RequestParser {
    private enum Framing { case none, fixed(Int), chunked }

    private static func requestLine(_ line: ArraySlice<UInt8>) throws(HTTPFailure) -> HTTPRequest {
        let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy(isTokenByte), !words[1].isEmpty else {
            throw HTTPFailure(400, "The request line isn't a method, a target and a version with one space between.")
        }
        let version = words[2]
        guard version.count == 8, version.starts(with: "HTTP/".utf8),
            version[version.startIndex + 6] == UInt8(ascii: "."),
            isDigit(version[version.startIndex + 5]), isDigit(version[version.startIndex + 7])
        else { throw HTTPFailure(400, "The request line has no HTTP version.") }
        guard version[version.startIndex + 5] == UInt8(ascii: "1") else {
            throw HTTPFailure(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        }
        let method = String(decoding: words[0], as: UTF8.self)
        let (path, query) = try RequestTarget.parse(words[1], method: method)
        var request = HTTPRequest(method: method, path: path)
        request.query = query
        request.minorVersion = version[version.startIndex + 7] == UInt8(ascii: "0") ? 0 : 1
        return request
    }

    private static func headerLine(_ line: ArraySlice<UInt8>, into request: inout HTTPRequest) throws(HTTPFailure) {
        guard request.headers.fields.count < Limits.headerCount else {
            throw HTTPFailure(431, "The request has more than \(Limits.headerCount) header fields.")
        }
        // A space before the name is obs-fold, one before the colon could hide a field: both are refused (RFC 9112, 5).
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
            line[..<colon].allSatisfy(isTokenByte)
        else { throw HTTPFailure(400, "A header field has no name that is a token before its colon.") }
        var value = line[(colon + 1)...]
        while let first = value.first, first == 0x20 || first == 0x09 { value.removeFirst() }
        while let last = value.last, last == 0x20 || last == 0x09 { value.removeLast() }
        let name = line[..<colon].map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }
        request.headers.append(String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self))
    }

    /// RFC 9112, 3.2.
    private static func checkHost(_ request: HTTPRequest) throws(HTTPFailure) {
        let hosts = request.headers.all("host")
        guard hosts.count == 1 || (hosts.isEmpty && request.minorVersion == 0) else {
            throw HTTPFailure(400, "An HTTP/1.1 request has exactly one Host field.")
        }
        let allowed = hosts.allSatisfy { host in
            host.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "-._~%!$&'()*+,;=:[]".utf8.contains(byte)
                }
            }
        }
        guard allowed else { throw HTTPFailure(400, "The Host field isn't a host.") }
    }

    /// RFC 9112, 6.
    private static func framing(_ request: HTTPRequest) throws(HTTPFailure) -> Framing {
        let lengths = request.headers.all("content-length")
        let encodings = request.headers.all("transfer-encoding")
        if !encodings.isEmpty {
            guard lengths.isEmpty else {
                throw HTTPFailure(400, "A request has Transfer-Encoding or Content-Length, not both.")
            }
            guard request.minorVersion == 1, encodings.count == 1 else {
                throw HTTPFailure(400, "Transfer-Encoding stands once, in HTTP/1.1.")
            }
            guard encodings[0].lowercased() == "chunked" else {
                throw HTTPFailure(501, "The only transfer coding that is understood here is chunked.")
            }
            return .chunked
        }
        guard !lengths.isEmpty else { return .none }
        guard lengths.count == 1, (1...15).contains(lengths[0].utf8.count), lengths[0].utf8.allSatisfy(isDigit),
            let length = Int(lengths[0])
        else { throw HTTPFailure(400, "Content-Length must stand once and be a decimal number.") }
        return .fixed(length)
    }

    /// A size in hexadecimal digits; extensions are passed over (RFC 9112, 7.1.1).
    private static func chunkSize(_ line: ArraySlice<UInt8>) throws(HTTPFailure) -> Int {
        let digits = line.prefix { RequestTarget.hexValue($0) != nil }
        let rest = line[digits.endIndex...].drop { $0 == 0x20 || $0 == 0x09 }
        guard (1...8).contains(digits.count), rest.isEmpty || rest.first == UInt8(ascii: ";") else {
            throw HTTPFailure(400, "A chunk's size must be a hexadecimal number.")
        }
        return digits.reduce(0) { $0 << 4 | Int(RequestTarget.hexValue($1) ?? 0) }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}
