import Supervision

extension SubCommand {
    static let token = SubCommand(
        name: "token", operands: "show|rotate", summary: "Show the node's token, or replace it by a new one.",
        options: [.init("--data-dir", "DIR", "The data folder (default: $AIDEVOPS_DATA_DIR, or ./data).")],
        run: { arguments in
            let action = try arguments.action(["show", "rotate"])
            let file = ConfigurationFile(
                path: NodePaths(data: Environment.dataFolder(arguments["--data-dir"])).config + "/worker.json")
            guard Files.exists(file.path) else {
                throw CommandFailure(message: "\(file.path) isn't there: the first `aidevops-worker serve` makes it")
            }
            if action == "show" {
                Terminal.out(try file.load().authToken + "\n")
            } else {
                let token = ConfigurationFile.randomToken()
                try file.set("dispatch", "auth_token", .string(token))
                Terminal.out(token + "\n")
            }
            return 0
        })
}
