import com.mpush.api.push.AckModel;
import com.mpush.api.push.PushCallback;
import com.mpush.api.push.PushContext;
import com.mpush.api.push.PushResult;
import com.mpush.api.push.PushSender;
import com.mpush.api.router.ClientLocation;
import com.mpush.common.push.RedisBroadcastController;
import com.mpush.common.router.CachedRemoteRouterManager;
import com.mpush.common.user.UserManager;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;

/**
 * The original's sending SDK, configured by the file that the property mp.conf names.
 *
 * Orders:
 *   push id user text [ack] [timeout]     ack: NO_ACK, AUTO_ACK, BIZ_ACK; timeout in ms
 *   broadcast id text [tags] [condition] [task] [timeout]      tags separated by commas
 *   kick user [type]                      by the original's user manager
 *   task id task                          how far a broadcast with a task id is
 *
 * Events: "started"; "result" for each call of the callback, with the id of the order,
 * code (1 success, 2 failure, 3 offline, 4 timeout), user, location and timeline (names and
 * ms in turn, separated by commas); "sent" when send returned, with "future" telling
 * whether there was one; "task" with sent and users; "error" for an order that failed.
 */
public final class SenderDriver {
    private final Steering steering = new Steering();
    private PushSender sender;

    public static void main(String[] args) throws Exception {
        new SenderDriver().run();
    }

    private void run() throws Exception {
        sender = PushSender.create();
        boolean started = sender.start().get(60, TimeUnit.SECONDS);
        steering.tell("started", "ok", started);
        steering.follow(this::carryOut);
        // The future of stop() never completes: end without it.
        System.exit(0);
    }

    private void carryOut(Map<String, String> order) {
        String user = order.get("user");
        switch (order.get("order")) {
            case "push":
                send(order, PushContext.build(order.get("text")).setUserId(user));
                break;
            case "broadcast":
                PushContext context = PushContext.build(order.get("text")).setBroadcast(true);
                if (order.containsKey("tags")) {
                    context.setTags(new HashSet<>(Arrays.asList(order.get("tags").split(","))));
                }
                context.setCondition(order.get("condition"));
                context.setTaskId(order.get("task"));
                send(order, context);
                break;
            case "kick":
                UserManager users = new UserManager(new CachedRemoteRouterManager());
                users.kickUser(user, Integer.parseInt(order.getOrDefault("type", "-1")));
                steering.tell("kicked", "user", user);
                break;
            case "task":
                RedisBroadcastController task = new RedisBroadcastController(order.get("task"));
                steering.tell("task", "id", order.get("id"), "sent", task.sendCount(),
                        "users", String.join(",", task.successUserIds()));
                break;
            default:
                throw new IllegalArgumentException(order.get("order"));
        }
    }

    private void send(Map<String, String> order, PushContext context) {
        String id = order.get("id");
        context.setAckModel(AckModel.valueOf(order.getOrDefault("ack", "NO_ACK")));
        context.setTimeout(Integer.parseInt(order.getOrDefault("timeout", "3000")));
        context.setCallback(new PushCallback() {
            @Override
            public void onResult(PushResult result) {
                tellResult(id, result);
            }
        });
        FutureTask<PushResult> future = sender.send(context);
        steering.tell("sent", "id", id, "future", future != null);
    }

    private void tellResult(String id, PushResult result) {
        ClientLocation location = result.location;
        steering.tell("result", "id", id, "code", result.resultCode, "user", result.userId,
                "location", location == null ? null : location.getHostAndPort(),
                "device", location == null ? null : location.getDeviceId(),
                "type", location == null ? null : location.getClientType(),
                "timeline", timeline(result.timeLine));
    }

    private static String timeline(Object[] points) {
        if (points == null) {
            return null;
        }
        StringBuilder text = new StringBuilder();
        for (Object point : points) {
            text.append(text.length() == 0 ? "" : ",").append(point);
        }
        return text.toString();
    }
}
