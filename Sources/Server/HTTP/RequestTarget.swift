/// Takes request targets apart (RFC 9112, 3.2) and decodes their percent-encoding (RFC 3986, 2.1).
enum RequestTarget {
    static func parse(_ target: ArraySlice<UInt8>, method: String) throws(HTTPFailure)
        -> (path: [String], query: [(name: String, value: String)])
    {
        guard target.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "#") }) else {
            throw HTTPFailure(400, "The request target has a character that must be percent-encoded.")
        }
        if target.elementsEqual("*".utf8) {
            guard method == "OPTIONS" else { throw HTTPFailure(400, "The target * belongs to OPTIONS alone.") }
            return (["*"], [])
        }
        let local = try originForm(target)
        let parts = local.split(separator: UInt8(ascii: "?"), maxSplits: 1, omittingEmptySubsequences: false)
        var path: [String] = []
        for segment in parts[0].dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            path.append(try decode(segment, plusIsSpace: false))
        }
        if path.isEmpty { path = [""] }
        return (path, parts.count == 2 ? try parseQuery(parts[1]) : [])
    }

    /// The path and query of an origin-form or absolute-form target.
    private static func originForm(_ target: ArraySlice<UInt8>) throws(HTTPFailure) -> ArraySlice<UInt8> {
        if target.first == UInt8(ascii: "/") { return target }
        let scheme = String(decoding: target.prefix(8), as: UTF8.self).lowercased()
        guard scheme.hasPrefix("http://") || scheme.hasPrefix("https://") else {
            throw HTTPFailure(400, "The request target must be a path or an http URL.")
        }
        let rest = target.dropFirst(scheme.hasPrefix("https://") ? 8 : 7)
        let authority = rest.prefix { $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") }
        guard !authority.isEmpty, !authority.contains(UInt8(ascii: "@")) else {
            throw HTTPFailure(400, "The request target names no host, or a user.")
        }
        let path = rest[authority.endIndex...]
        if path.first == UInt8(ascii: "/") { return path }
        return [UInt8(ascii: "/")] + path
    }

    private static func parseQuery(_ query: ArraySlice<UInt8>) throws(HTTPFailure) -> [(name: String, value: String)] {
        var pairs: [(name: String, value: String)] = []
        for pair in query.split(separator: UInt8(ascii: "&")) {
            let sides = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            let value = sides.count == 2 ? try decode(sides[1], plusIsSpace: true) : ""
            pairs.append((try decode(sides[0], plusIsSpace: true), value))
        }
        return pairs
    }

    /// - Throws: 400 for a broken escape, an encoded NUL, and bytes that aren't UTF-8.
    package static func decode(_ text: ArraySlice<UInt8>, plusIsSpace: Bool) throws(HTTPFailure) -> String {
        var bytes: [UInt8] = []
        var at = text.startIndex
        while at < text.endIndex {
            switch text[at] {
            case UInt8(ascii: "%"):
                guard at + 2 < text.endIndex, let high = hexValue(text[at + 1]), let low = hexValue(text[at + 2]) else {
                    throw HTTPFailure(400, "The request target has a % that isn't followed by two hexadecimal digits.")
                }
                bytes.append(high << 4 | low)
                at += 3
            case UInt8(ascii: "+") where plusIsSpace:
                bytes.append(UInt8(ascii: " "))
                at += 1
            case let byte:
                bytes.append(byte)
                at += 1
            }
        }
        guard !bytes.contains(0), let decoded = String(validating: bytes, as: UTF8.self) else {
            throw HTTPFailure(400, "The request target's decoded form isn't text in UTF-8.")
        }
        return decoded
    }

    static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
