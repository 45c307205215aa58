import CSystem
import Glibc
import Server
import Supervision

extension SubCommand {
    static let serve = SubCommand(
        name: "serve", summary: "Run the node: take tasks over HTTP and work on them.",
        options: [
            .init("--data-dir", "DIR", "The data folder (default: $AIDEVOPS_DATA_DIR, or ./data)."),
            .init("--host", "ADDRESS", "The address to listen on (default: 127.0.0.1; in Cloudron 0.0.0.0)."),
            .init("--port", "PORT", "The port to listen on, 0 for a free one (default: $PORT, or 3000)."),
            .init("--log-format", "FORMAT", "The form of the node's own log: text (default) or json."),
            .init("--log-level", "LEVEL", "The least level that is logged: debug, info (default), warning or error."),
        ],
        run: { arguments in
            try arguments.requireOperands()
            let options = try ServeOptions(arguments)
            return try Node.serve(options)
        })
}

/// What `serve` was told.
struct ServeOptions {
    var dataFolder: String
    var host: String
    var port: UInt16
    var log: NodeLog

    init(_ arguments: Arguments) throws(UsageError) {
        dataFolder = Environment.dataFolder(arguments["--data-dir"])
        host = arguments["--host"] ?? (Environment.isCloudron ? "0.0.0.0" : "127.0.0.1")
        var port = try arguments.integer("--port", 0...65535)
        if port == nil, let text = Environment.variables["PORT"] {
            port = Int(text)
            guard let number = port, (0...65535).contains(number) else {
                throw UsageError(message: "PORT must be a number from 0 to 65535, not \(text)")
            }
        }
        self.port = UInt16(port ?? 3000)
        guard let format = NodeLog.Format(rawValue: arguments["--log-format"] ?? "text") else {
            throw UsageError(message: "--log-format takes text or json")
        }
        guard let level = NodeLog.Level(rawValue: arguments["--log-level"] ?? "info") else {
            throw UsageError(message: "--log-level takes debug, info, warning or error")
        }
        log = NodeLog(format: format, level: level)
    }
}
