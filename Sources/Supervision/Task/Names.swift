/// The rules for the names that come from outside. Each function answers what is wrong with one, or nil.
package enum Names {
    /// Digits that nobody can guess, of the system's generator.
    package static func randomHex(digits: Int) -> String {
        (0..<digits).map { _ in String(Int.random(in: 0..<16), radix: 16) }.joined()
    }

    private static let maxURLBytes = 2048

    package static func problem(callbackURL url: String) -> String? {
        guard url.hasPrefix("https://") || url.hasPrefix("http://"), url.utf8.count <= maxURLBytes,
            url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\\") }), let host = host(of: url)
        else { return "must be an http or https URL of at most \(maxURLBytes) characters" }
        return host.contains("@") ? "must not hold a user or password" : nil
    }

    /// The host of a URL, without its port.
    package static func host(of url: String) -> String? {
        guard let colon = url.firstIndex(of: ":"), url[colon...].hasPrefix("://") else { return nil }
        let authority = url[url.index(colon, offsetBy: 3)...].prefix { !"/?#".contains($0) }
        let host = authority.hasPrefix("[") ? authority.prefix { $0 != "]" } + "]" : authority.prefix { $0 != ":" }
        // What stands before an @ must not pass for the host.
        return authority.isEmpty ? nil : authority.contains("@") ? String(authority) : String(host)
    }

    package static let maxPromptCharacters = 10_000
    package static let maxBranchBytes = 256
    private static let maxModelBytes = 256
    private static let maxPartBytes = 100

    /// `owner/repo`.
    package static func problem(repo: String) -> String? {
        let parts = repo.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(isPlain) }) else {
            return "must be owner/repo, of letters, digits, dots, underscores and hyphens"
        }
        guard parts.allSatisfy({ $0 != "." && $0 != ".." && !$0.hasPrefix("-") }) else {
            return "must not have a part that is . or .. or starts with a hyphen"
        }
        guard parts.allSatisfy({ $0.utf8.count <= maxPartBytes }) else {
            return "must not have a part longer than \(maxPartBytes) characters"
        }
        return nil
    }

    package static func problem(taskID id: String) -> String? {
        guard (1...128).contains(id.utf8.count), id.utf8.allSatisfy(isPlain), id != ".", id != ".." else {
            return "must be 1 to 128 letters, digits, dots, underscores or hyphens, and not . or .."
        }
        return nil
    }

    package static func problem(prompt: String) -> String? {
        if prompt.allSatisfy(\.isWhitespace) { return "must not be empty" }
        if prompt.unicodeScalars.count > maxPromptCharacters {
            return "must be at most \(maxPromptCharacters) characters long; this one has \(prompt.unicodeScalars.count)"
        }
        return prompt.utf8.contains(0) ? "must not contain a NUL character" : nil
    }

    package static func problem(model: String) -> String? {
        let allowed = model.utf8.allSatisfy { isPlain($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: "/") }
        guard (1...maxModelBytes).contains(model.utf8.count), allowed, model.utf8.first.map(isAlphanumeric) == true
        else {
            return "must be letters, digits and any of . _ : / - , and start with a letter or digit"
        }
        return nil
    }

    /// The rules of git-check-ref-format(1) for a branch.
    package static func problem(branch: String) -> String? {
        guard (1...maxBranchBytes).contains(branch.utf8.count) else {
            return "must be 1 to \(maxBranchBytes) bytes long"
        }
        let forbidden = Set(" ~^:?*[\\".utf8)
        guard branch.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f && !forbidden.contains($0) }) else {
            return "must not contain white space, control characters or any of ~ ^ : ? * [ \\"
        }
        let parts = branch.split(separator: "/", omittingEmptySubsequences: false)
        let badPart = parts.contains { $0.isEmpty || $0.hasPrefix(".") || $0.hasSuffix(".lock") }
        let hasBadSequence = zip(branch.utf8, branch.utf8.dropFirst()).contains {
            ($0 == UInt8(ascii: ".") && $1 == UInt8(ascii: ".")) || ($0 == UInt8(ascii: "@") && $1 == UInt8(ascii: "{"))
        }
        guard !badPart, !hasBadSequence, !branch.hasPrefix("-"), !branch.hasSuffix("."), branch != "@", branch != "HEAD"
        else {
            return "isn't a branch name that git accepts (git-check-ref-format)"
        }
        return nil
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        isAlphanumeric(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }
}

extension String {
    /// For a part of a URL's path or query (RFC 3986, 2.3): all but the unreserved characters escaped.
    package var percentEncoded: String {
        let unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~".utf8
        return utf8.map { byte in
            unreserved.contains(byte)
                ? String(UnicodeScalar(byte)) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
        }.joined()
    }
}
