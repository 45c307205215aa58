/// Header fields in the order in which they came, their names in lower case.
package struct HTTPHeaders: Sendable, Equatable {
    package private(set) var fields: [(name: String, value: String)] = []

    package init() {}

    package mutating func append(_ name: String, _ value: String) { fields.append((name, value)) }

    /// The value of the first field of this name (in lower case).
    package subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

    package func all(_ name: String) -> [String] { fields.lazy.filter { $0.name == name }.map(\.value) }

    /// Whether the comma-separated lists of these fields have `token`, compared without case (RFC 9110, 5.6.1).
    package func lists(_ name: String, _ token: String) -> Bool {
        all(name).contains { value in
            value.split(separator: ",").contains { $0.withoutBlanks.lowercased() == token }
        }
    }

    package static func == (left: HTTPHeaders, right: HTTPHeaders) -> Bool {
        left.fields.elementsEqual(right.fields) { $0.name == $1.name && $0.value == $1.value }
    }
}

extension Substring {
    /// Without the optional white space of header fields at both ends (RFC 9110, 5.6.3).
    var withoutBlanks: Substring {
        var text = self
        while text.first == " " || text.first == "\t" { text.removeFirst() }
        while text.last == " " || text.last == "\t" { text.removeLast() }
        return text
    }
}

/// A request whose form has been checked.
package struct HTTPRequest: Sendable, Equatable {
    package var method: String
    /// The decoded parts of the path: `/workers/a%2Fb` has `workers` and `a/b`, `/` has one empty part.
    package var path: [String]
    /// The decoded pairs of the query, in order.
    package var query: [(name: String, value: String)] = []
    /// 0 or 1, of HTTP/1.x.
    package var minorVersion = 1
    package var headers = HTTPHeaders()
    package var body: [UInt8] = []
    /// Whether the client wants the connection kept.
    package var keepsAlive = true
    /// The peer's numeric address.
    package var peer = ""

    package init(method: String, path: [String]) {
        self.method = method
        self.path = path
    }

    package func parameter(_ name: String) -> String? { query.first { $0.name == name }?.value }

    package static func == (left: HTTPRequest, right: HTTPRequest) -> Bool {
        left.method == right.method && left.path == right.path && left.minorVersion == right.minorVersion
            && left.headers == right.headers && left.body == right.body && left.keepsAlive == right.keepsAlive
            && left.query.elementsEqual(right.query) { $0.name == $1.name && $0.value == $1.value }
    }
}

/// Why a request isn't answered as it asks; the connection closes after the answer.
package struct HTTPFailure: Error, Sendable, Equatable {
    package let status: Int
    /// A sentence.
    package let message: String

    package init(_ status: Int, _ message: String) {
        self.status = status
        self.message = message
    }
}
