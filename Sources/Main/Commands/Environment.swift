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

    /// The user's own folder.
    static var home: String { variables["HOME"] ?? "/" }

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
