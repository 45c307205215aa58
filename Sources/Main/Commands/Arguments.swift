/// How a command was called wrongly: a sentence, and exit code 2.
struct UsageError: Error {
    let message: String
}

/// The options and operands of a command, checked against those that it takes.
struct Arguments {
    struct Option: Sendable {
        let name: String
        /// What its value is, for the help; nil for a flag.
        let value: String?
        let help: String
        /// Another name, of one letter.
        let short: String?

        init(_ name: String, short: String? = nil, _ value: String? = nil, _ help: String) {
            self.name = name
            self.short = short
            self.value = value
            self.help = help
        }
    }

    private(set) var operands: [String] = []
    private var values: [String: String] = [:]

    /// Takes `--name value`, `--name=value` and `--flag`; `--` ends the options.
    init(_ words: [String], options: [Option]) throws(UsageError) {
        var rest = words[...]
        while let word = rest.popFirst() {
            if word == "--" {
                operands += rest
                return
            }
            guard word.hasPrefix("-"), word != "-" else {
                operands.append(word)
                continue
            }
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard let option = options.first(where: { $0.name == parts[0] || $0.short == parts[0] }) else {
                throw UsageError(message: Arguments.unknown("option", parts[0], among: options.map(\.name)))
            }
            if option.value == nil {
                guard parts.count == 1 else { throw UsageError(message: "\(option.name) takes no value") }
                values[option.name] = ""
            } else if parts.count == 2 {
                values[option.name] = parts[1]
            } else {
                guard let value = rest.popFirst() else { throw UsageError(message: "\(option.name) needs a value") }
                values[option.name] = value
            }
        }
    }

    subscript(name: String) -> String? { values[name] }

    func has(_ name: String) -> Bool { values[name] != nil }

    func integer(_ name: String, _ range: ClosedRange<Int>) throws(UsageError) -> Int? {
        guard let value = values[name] else { return nil }
        guard let number = Int(value), range.contains(number) else {
            throw UsageError(
                message: "\(name) takes a whole number from \(range.lowerBound) to \(range.upperBound), not \(value)")
        }
        return number
    }

    func requireOperands(_ names: String...) throws(UsageError) {
        if operands.count < names.count { throw UsageError(message: "\(names[operands.count]) is missing") }
        if operands.count > names.count {
            throw UsageError(message: "\(operands[names.count]) is one argument too many")
        }
    }

    /// The one operand, which is one of these words.
    func action(_ known: [String]) throws(UsageError) -> String {
        try requireOperands(known.joined(separator: " or "))
        guard known.contains(operands[0]) else {
            throw UsageError(message: Arguments.unknown("action", operands[0], among: known))
        }
        return operands[0]
    }

    /// `unknown option --prot; did you mean --port?`
    static func unknown(_ kind: String, _ word: String, among known: [String]) -> String {
        let nearest = known.min { distance($0, word) < distance($1, word) }
        let isNear = nearest.map { distance($0, word) <= max(2, word.count / 3) } ?? false
        return "unknown \(kind) \(word)" + (isNear ? "; did you mean \(nearest ?? "")?" : "")
    }

    /// Levenshtein's edit distance.
    private static func distance(_ left: String, _ right: String) -> Int {
        let right = Array(right)
        var row = Array(0...right.count)
        for (i, character) in left.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for j in right.indices {
                let cost = min(row[j] + 1, row[j + 1] + 1, diagonal + (character == right[j] ? 0 : 1))
                diagonal = row[j + 1]
                row[j + 1] = cost
            }
        }
        return row[right.count]
    }
}
