/// Takes values out of JSON by dotted paths, collecting what is wrong and what nobody asked for.
struct ConfigurationReader {
    private let root: JSONValue
    private var problems: [String] = []
    private var known: Set<String> = []

    init(_ root: JSONValue) {
        self.root = root
        if case .object = root {} else { problems.append("the file must hold a JSON object") }
    }

    mutating func report(_ path: String, _ problem: String) { problems.append("\(path) \(problem)") }

    mutating func integer(_ path: String, _ fallback: Int, _ range: ClosedRange<Int>) -> Int {
        guard let value = value(at: path) else { return fallback }
        guard case .integer(let integer) = value, range.contains(integer) else {
            report(path, "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
            return fallback
        }
        return integer
    }

    /// A number of minutes, with a fraction if need be.
    mutating func minutes(_ path: String, _ fallback: Double) -> Duration { number(path, fallback) * 60 }

    /// A number of seconds, with a fraction if need be.
    mutating func seconds(_ path: String, _ fallback: Double) -> Duration { number(path, fallback) }

    private mutating func number(_ path: String, _ fallback: Double) -> Duration {
        let most = 100_000.0
        let value: Double? =
            switch value(at: path) {
            case nil: fallback
            case .integer(let integer): Double(integer)
            case .number(let number): number
            default: nil
            }
        guard let value, (0...most).contains(value) else {
            report(path, "must be a number from 0 to \(Int(most))")
            return .zero
        }
        return .seconds(value)
    }

    mutating func bool(_ path: String, _ fallback: Bool) -> Bool {
        guard let value = value(at: path) else { return fallback }
        guard case .bool(let bool) = value else {
            report(path, "must be true or false")
            return fallback
        }
        return bool
    }

    mutating func string(_ path: String, _ fallback: String, _ problem: (String) -> String?) -> String {
        guard let value = value(at: path) else { return fallback }
        guard case .string(let string) = value else {
            report(path, "must be a string")
            return fallback
        }
        if let problem = problem(string) { report(path, problem) }
        return string
    }

    mutating func choice<Choice: RawRepresentable & CaseIterable>(_ path: String, _ fallback: Choice) -> Choice
    where Choice.RawValue == String {
        let all = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        let name = string(path, fallback.rawValue) { Choice(rawValue: $0) == nil ? "must be one of \(all)" : nil }
        return Choice(rawValue: name) ?? fallback
    }

    mutating func strings(_ path: String, _ problem: (String) -> String?) -> [String] {
        array(path, "strings") { element, report in
            guard case .string(let string) = element else {
                report("must be a string")
                return nil
            }
            if let problem = problem(string) { report(problem) }
            return string
        } ?? []
    }

    /// Nil where there is no array.
    mutating func integers(_ path: String, _ range: ClosedRange<Int>) -> [Int]? {
        array(path, "whole numbers") { element, report in
            guard case .integer(let integer) = element, range.contains(integer) else {
                report("must be a whole number from \(range.lowerBound) to \(range.upperBound)")
                return nil
            }
            return integer
        }
    }

    private mutating func array<Element>(
        _ path: String, _ kind: String, _ take: (JSONValue, (String) -> Void) -> Element?
    ) -> [Element]? {
        guard let value = value(at: path) else { return nil }
        guard case .array(let array) = value else {
            report(path, "must be an array of \(kind)")
            return nil
        }
        return array.enumerated().compactMap { index, element in
            take(element) { problems.append("\(path)[\(index)] \($0)") }
        }
    }

    mutating func stringTable(_ path: String) -> [String: String] {
        guard let value = value(at: path) else { return [:] }
        guard case .object(let object) = value else {
            report(path, "must be an object of strings")
            return [:]
        }
        var table: [String: String] = [:]
        for (name, element) in object {
            known.insert("\(path).\(name)")
            guard case .string(let string) = element, !name.isEmpty, !name.contains("="),
                !(name + string).utf8.contains(0)
            else {
                report("\(path).\(name)", "must be a name without = and a string")
                continue
            }
            table[name] = string
        }
        return table
    }

    /// - Returns: the paths that nobody asked for.
    /// - Throws: all that was wrong.
    func finish() throws(ConfigurationError) -> [String] {
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
        return unknown(in: root, at: "")
    }

    /// Null counts as absent.
    private mutating func value(at path: String) -> JSONValue? {
        known.insert(path)
        var value: JSONValue? = root
        for key in path.split(separator: ".") {
            if let parent = value, parent != .null, case .object = parent {
            } else if value != nil, value != .null {
                report(path, "can't be read: what holds it isn't an object")
                return nil
            }
            value = value?[String(key)]
        }
        return value == .null ? nil : value
    }

    private func unknown(in value: JSONValue, at path: String) -> [String] {
        guard case .object(let object) = value, !known.contains(path) else { return known.contains(path) ? [] : [path] }
        return object.sorted { $0.key < $1.key }.flatMap { key, value in
            unknown(in: value, at: path.isEmpty ? key : "\(path).\(key)")
        }
    }
}
