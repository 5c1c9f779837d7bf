import com.google.common.eventbus.AllowConcurrentEvents;
import com.google.common.eventbus.Subscribe;
import com.mpush.api.event.KickUserEvent;
import com.mpush.api.event.ServerStartupEvent;
import com.mpush.api.event.UserOfflineEvent;
import com.mpush.api.event.UserOnlineEvent;
import com.mpush.bootstrap.ServerLauncher;
import com.mpush.tools.event.EventBus;

/**
 * A node of the original, configured by the file that the property mp.conf names.
 *
 * Events: "started" after the last step of its boot chain; "online", "offline", "kicked"
 * with the user. The only order is "exit": a graceful stop. The end of the input is one as
 * well.
 */
public final class NodeDriver {
    private final Steering steering = new Steering();

    public static void main(String[] args) throws Exception {
        new NodeDriver().run();
    }

    private void run() throws Exception {
        ServerLauncher launcher = new ServerLauncher();
        launcher.init();
        EventBus.register(this);
        launcher.start();
        steering.follow(order -> {
            throw new IllegalArgumentException("a node takes no orders");
        });
        launcher.stop();
        steering.tell("stopped");
        System.exit(0);
    }

    @Subscribe
    @AllowConcurrentEvents
    public void on(ServerStartupEvent event) {
        steering.tell("started");
    }

    @Subscribe
    @AllowConcurrentEvents
    public void on(UserOnlineEvent event) {
        steering.tell("online", "user", event.getUserId());
    }

    @Subscribe
    @AllowConcurrentEvents
    public void on(UserOfflineEvent event) {
        steering.tell("offline", "user", event.getUserId());
    }

    @Subscribe
    @AllowConcurrentEvents
    public void on(KickUserEvent event) {
        steering.tell("kicked", "user", event.userId, "device", event.deviceId,
                "from", event.fromServer);
    }
}
