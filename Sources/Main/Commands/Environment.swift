import Glibc

/// The environment of this process.
enum Environment {
    static let variables: [String: String] = {
        var variables: [String: String] = [:]
        var entry = unsafe environ
        while let text = unsafe entry.pointee {
            let pair = unsafe String(cString: text)
            if let equals = pair.firstIndex(of: "=") {
                variables[String(pair[..<equals])] = String(pair[pair.index(after: equals)...])
            }
            unsafe entry += 1
        }
        return variables
    }()

    static var isCloudron: Bool { variables["CLOUDRON"] != nil }

    /// The data folder, absolute: the option, the variable, Cloudron's, or `./data`.
    static func dataFolder(_ option: String?) -> String {
        let named = option ?? variables["AIDEVOPS_DATA_DIR"] ?? (isCloudron ? "/app/data" : "data")
        return absolute(named.isEmpty ? "." : named)
    }

    static func absolute(_ path: String) -> String {
        if path.hasPrefix("/") { return path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path }
        guard let folder = unsafe getcwd(nil, 0) else { return path }
        defer { unsafe free(folder) }
        let here = unsafe String(cString: folder)
        return absolute((here == "/" ? "" : here) + "/" + (path == "." ? "" : path))
    }
}

/// Writes to the terminal or wherever the streams go.
enum Terminal {
    static func out(_ text: String) { write(text, to: STDOUT_FILENO) }
    static func error(_ text: String) { write("aidevops-worker: \(text)\n", to: STDERR_FILENO) }

    private static func write(_ text: String, to descriptor: Int32) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno != EINTR { return }
            rest = rest.dropFirst(max(0, count))
        }
    }
}
