import FoundationEssentials

/// Any JSON, for looking into answers.
package indirect enum TestJSON: Decodable, Equatable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([TestJSON])
    case object([String: TestJSON])

    package init(_ text: String) throws { self = try JSONDecoder().decode(TestJSON.self, from: Data(text.utf8)) }

    package init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            self = .null
        } else if let bool = try? value.decode(Bool.self) {
            self = .bool(bool)
        } else if let number = try? value.decode(Double.self) {
            self = .number(number)
        } else if let string = try? value.decode(String.self) {
            self = .string(string)
        } else if let array = try? value.decode([TestJSON].self) {
            self = .array(array)
        } else {
            self = .object(try value.decode([String: TestJSON].self))
        }
    }

    package subscript(key: String) -> TestJSON? { if case .object(let object) = self { object[key] } else { nil } }
    package var strings: [String] {
        if case .array(let array) = self {
            array.compactMap { if case .string(let string) = $0 { string } else { nil } }
        } else {
            []
        }
    }
    package var keys: [String] { if case .object(let object) = self { object.keys.sorted() } else { [] } }
}

/// Checks values against the part of JSON Schema that the node's description uses.
package struct TestSchema {
    private let document: TestJSON

    package init(document: TestJSON) { self.document = document }

    /// What is wrong with a value, with the place of each.
    package func problems(_ value: TestJSON, _ schema: TestJSON, at path: String = "$") -> [String] {
        if case .string(let reference)? = schema["$ref"] {
            let name = String(reference.drop { $0 != "/" }.split(separator: "/").last ?? "")
            guard let found = document["components"]?["schemas"]?[name] else { return ["\(path): no schema \(name)"] }
            return problems(value, found, at: path)
        }
        var types: [String] = schema["type"]?.strings ?? []
        if case .string(let type)? = schema["type"] { types = [type] }
        if types.contains("number") { types.append("integer") }
        guard types.isEmpty || types.contains(TestSchema.type(of: value)) else {
            return ["\(path): \(value) isn't \(types)"]
        }
        var found: [String] = []
        if case .array(let allowed)? = schema["enum"], !allowed.contains(value) {
            found.append("\(path): \(value) isn't in the enum")
        }
        if let constant = schema["const"], constant != value { found.append("\(path): \(value) isn't \(constant)") }
        switch value {
        case .array(let elements):
            if let items = schema["items"] {
                for element in elements { found += problems(element, items, at: path + "[]") }
            }
        case .object(let members):
            for name in schema["required"]?.strings ?? [] where members[name] == nil {
                found.append("\(path).\(name) is missing")
            }
            for (name, member) in members {
                if let property = schema["properties"]?[name] {
                    found += problems(member, property, at: "\(path).\(name)")
                } else if schema["additionalProperties"] == .bool(false) {
                    found.append("\(path).\(name) isn't described")
                }
            }
        default: break
        }
        return found
    }

    private static func type(of value: TestJSON) -> String {
        switch value {
        case .null: "null"
        case .bool: "boolean"
        case .number(let number): number == number.rounded() ? "integer" : "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }
}
