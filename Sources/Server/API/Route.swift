/// What the API can be asked for.
enum Endpoint: Equatable {
    case health, status, dispatch, workers, worker, cancel, logs, changes, pulse, pulseRound, tasks, events, metrics,
        openapi
    case file(DashboardFile)

    var needsToken: Bool {
        switch self {
        case .health, .status, .file, .openapi: false
        case .dispatch, .workers, .worker, .cancel, .logs, .changes, .pulse, .pulseRound, .tasks, .events, .metrics:
            true
        }
    }
}

/// The table of the API's paths.
struct Route: Equatable {
    let method: String
    /// `:id` stands for a task's id.
    let path: [String]
    let endpoint: Endpoint

    /// The most asked for come first.
    static let all =
        [Route(method: "GET", path: ["health"], endpoint: .health)]
        + DashboardFile.allCases.map { Route(method: "GET", path: [$0.rawValue], endpoint: .file($0)) } + [
            Route(method: "GET", path: ["status"], endpoint: .status),
            Route(method: "GET", path: ["openapi.json"], endpoint: .openapi),
            Route(method: "POST", path: ["dispatch"], endpoint: .dispatch),
            Route(method: "GET", path: ["workers"], endpoint: .workers),
            Route(method: "GET", path: ["workers", ":id"], endpoint: .worker),
            Route(method: "DELETE", path: ["workers", ":id"], endpoint: .cancel),
            Route(method: "GET", path: ["workers", ":id", "logs"], endpoint: .logs),
            Route(method: "GET", path: ["workers", ":id", "changes"], endpoint: .changes),
            Route(method: "GET", path: ["pulse"], endpoint: .pulse),
            Route(method: "POST", path: ["pulse"], endpoint: .pulseRound),
            Route(method: "GET", path: ["tasks"], endpoint: .tasks),
            Route(method: "GET", path: ["events"], endpoint: .events),
            Route(method: "GET", path: ["metrics"], endpoint: .metrics),
        ]

    enum Match: Equatable {
        /// `index` is the route's in `all`.
        case found(Endpoint, index: Int, id: String)
        case options(allowed: String)
        case methodNotAllowed(allowed: String)
        case notFound

        /// For metrics: of bounded number, whatever clients ask for.
        static let names = all.map(\.name) + ["options", "method_not_allowed", "not_found", "invalid"]
        /// Of requests that couldn't be read.
        static let invalid = names.count - 1

        /// Into `names`.
        var index: Int {
            switch self {
            case .found(_, let index, _): index
            case .options: Match.invalid - 3
            case .methodNotAllowed: Match.invalid - 2
            case .notFound: Match.invalid - 1
            }
        }
    }

    private let name: String

    private init(method: String, path: [String], endpoint: Endpoint) {
        self.method = method
        self.path = path
        self.endpoint = endpoint
        name = "\(method) /\(path.joined(separator: "/"))"
    }

    /// HEAD is answered where GET is.
    static func find(method: String, path: [String]) -> Match {
        if path.first == "*", path.count == 1 { return .options(allowed: "GET, HEAD, POST, DELETE, OPTIONS") }
        let method = method == "HEAD" ? "GET" : method
        var methods: [String] = []
        for index in all.indices {
            guard let id = all[index].match(path) else { continue }
            if all[index].method == method { return .found(all[index].endpoint, index: index, id: id) }
            methods.append(all[index].method)
        }
        if methods.isEmpty { return .notFound }
        let allowed = (methods.flatMap { $0 == "GET" ? ["GET", "HEAD"] : [$0] } + ["OPTIONS"]).joined(separator: ", ")
        return method == "OPTIONS" ? .options(allowed: allowed) : .methodNotAllowed(allowed: allowed)
    }

    private func match(_ parts: [String]) -> String? {
        guard parts.count == path.count else { return nil }
        var id = ""
        for (part, wanted) in zip(parts, path) {
            if wanted == ":id" { id = part } else if part != wanted { return nil }
        }
        return id
    }
}
