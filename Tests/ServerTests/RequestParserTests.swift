import Testing

@testable import Server

/// The parser against the rules of RFC 9110 and 9112, each case named by its section.
@Suite struct RequestParserTests {
    private func parse(_ text: String, piece: Int = .max) -> [RequestParser.Step] {
        var parser = RequestParser()
        var steps: [RequestParser.Step] = []
        var rest = Array(text.utf8)[...]
        repeat {
            parser.append(Array(rest.prefix(piece)))
            rest = rest.dropFirst(piece)
            loop: while true {
                let step = parser.next()
                switch step {
                case .needsMore: break loop
                case .awaitsContinue, .request: steps.append(step)
                case .failed: return steps + [step]
                }
            }
        } while !rest.isEmpty
        return steps
    }

    private func status(_ text: String) -> Int? {
        for step in parse(text) { if case .failed(let failure) = step { return failure.status } }
        return nil
    }

    private func request(_ text: String) throws -> HTTPRequest {
        for step in parse(text) { if case .request(let request) = step { return request } }
        throw HTTPFailure(0, "no request: \(parse(text))")
    }

    @Test(arguments: [
        ("9112 2.2 bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
        ("9112 2.2 bare CR", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
        ("9112 2.2 space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("9112 2.2 garbage without a line end", "\u{16}\u{03}\u{01}\u{00}", 400),
        ("9112 2.2 two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 2.3 lower-case name", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 2.3 version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("9112 2.3 version of two digits", "GET / HTTP/1.11\r\nHost: a\r\n\r\n", 400),
        ("9112 3 no version", "GET /\r\nHost: a\r\n\r\n", 400),
        ("9112 3 two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3 a tab between", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3 space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("9110 9.1 method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2 target with a space", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2 target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2 fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2 control character", "GET /\u{01} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2.2 userinfo", "GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2.3 authority form", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2.4 asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2 Host missing", "GET / HTTP/1.1\r\n\r\n", 400),
        ("9112 3.2 Host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("9112 3.2 Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("9112 5.1 space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("9112 5.1 no colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
        ("9112 5.1 no name", "GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
        ("9112 5.2 obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        ("9110 5.5 NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{00}c\r\n\r\n", 400),
        ("9110 5.5 DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}c\r\n\r\n", 400),
        (
            "9112 6.1 Transfer-Encoding and Content-Length",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400
        ),
        ("9112 6.1 unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (
            "9112 6.1 coding twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400
        ),
        ("9112 6.1 coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("9112 6.3 length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        ("9112 6.3 list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
        ("9110 8.6 signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        ("9110 8.6 empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\na", 400),
        ("9110 8.6 hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", 400),
        (
            "9110 8.6 length beyond all numbers",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400
        ),
        ("9110 15.5.14 body too large", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
        (
            "9110 10.1.1 unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n",
            417
        ),
        (
            "9112 7.1 chunk size that is no number",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400
        ),
        (
            "9112 7.1 chunk size with 0x",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", 400
        ),
        ("9112 7.1 negative chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (
            "9112 7.1 chunk size of nine digits",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n000000001\r\na\r\n", 400
        ),
        (
            "9112 7.1 chunk longer than said",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400
        ),
        (
            "9112 7.1 bare LF behind the size",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n", 400
        ),
        (
            "9112 7.1 chunks beyond the limit",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413
        ),
        ("3986 2.1 broken escape", "GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3986 2.1 escape of no digits", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3986 2.1 encoded NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3986 2.5 overlong UTF-8", "GET /%c0%af HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ])
    func refuses(rule: String, text: String, expected: Int) { #expect(status(text) == expected, "\(rule)") }

    @Test func refusesWhatIsTooLong() {
        let long = String(repeating: "a", count: 9000)
        #expect(status("GET /\(long) HTTP/1.1\r\nHost: a\r\n\r\n") == 414)
        #expect(status("GET / HTTP/1.1\r\nHost: a\r\nX: \(long)\(long)\r\n\r\n") == 431)
        #expect(status("GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: y\r\n", count: 101) + "\r\n") == 431)
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        #expect(status(chunked + "1;" + String(repeating: "x", count: 300) + "\r\na\r\n") == 400)
        let extensions = String(repeating: "1;" + String(repeating: "x", count: 200) + "\r\na\r\n", count: 400)
        #expect(status(chunked + extensions) == 400)
        #expect(status(chunked + "0\r\n" + String(repeating: "X: y\r\n", count: 20_000) + "\r\n") == 400)
    }

    @Test func takesTheFormsThatTheRFCAllows() throws {
        #expect(try request("GET /a%2Fb/c?x=1&y=a+b%21&z HTTP/1.1\r\nHost: a\r\n\r\n").path == ["a/b", "c"])
        let query = try request("GET /?x=1&y=a+b%21&z HTTP/1.1\r\nHost: a\r\n\r\n").query
        #expect(query.map(\.name) == ["x", "y", "z"] && query.map(\.value) == ["1", "a b!", ""])
        #expect(try request("GET http://h:1/p?q HTTP/1.1\r\nHost: a\r\n\r\n").path == ["p"])
        #expect(try request("GET HTTP://h HTTP/1.1\r\nHost: a\r\n\r\n").path == [""])
        #expect(try request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path == ["*"])
        #expect(try request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").path == [""])
        #expect(try request("GET / HTTP/1.1\r\nHost:\r\n\r\n").headers["host"] == "")
        #expect(try request("GET / HTTP/1.0\r\n\r\n").keepsAlive == false)
        #expect(try request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keepsAlive)
        #expect(try request("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n").keepsAlive == false)
        #expect(try request("GET / HTTP/1.1\r\nHost: a\r\nX:\t b \t\r\n\r\n").headers["x"] == "b")
    }

    @Test(arguments: [1, 2, 3, 7, 10_000])
    func readsBodiesInAnyPieces(piece: Int) {
        let text =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
            + "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\nA \r\n0123456789\r\n0\r\nT: x\r\n\r\n"
            + "GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
        let bodies = parse(text, piece: piece).map { step -> String in
            guard case .request(let request) = step else { return "\(step)" }
            return String(decoding: request.body, as: UTF8.self)
        }
        #expect(bodies == ["hello", "abc0123456789", ""])
    }

    @Test func asksForABodyThatWaits() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        #expect(parse(head) == [.awaitsContinue])
        #expect(parse(head + "ab").count == 1)  // it comes already: no need to ask
    }

    @Test func staysFailed() {
        var parser = RequestParser()
        parser.append(Array("BAD\r\n".utf8))
        let first = parser.next()
        parser.append(Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
        #expect(parser.next() == first)
    }
}
